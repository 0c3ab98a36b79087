"""The command: files, exit codes, nothing written after bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest
from skimage import io

from nnunet_semisup.cli.evaluate import main

HEART = {"background": 0, "heart": 1}


def exit_code(folders, *options):
    with pytest.raises(SystemExit) as error:
        main([str(folders.reference), str(folders.prediction), "-np", "1", *map(str, options)])
    return error.value.code


@pytest.fixture
def ready(folders, cube):
    folders.dataset_json(HEART)
    folders.case("a", cube, np.roll(cube, 1, axis=0))
    folders.case("b", np.zeros_like(cube), np.zeros_like(cube))
    for name in "ab":
        folders.write(folders.images, f"{name}_0000", cube * np.float32(2))
    return folders


def test_default_output_is_strict_json_with_every_case(ready, capsys):
    assert exit_code(ready) == 0

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    path = ready.prediction / "semisup_evaluation.json"
    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert list(content["cases"]) == ["a", "b"]
    assert content["cases"]["b"]["classes"]["heart"]["Dice"] is None
    assert content["cases"]["a"]["classes"]["heart"]["Dice"] == pytest.approx(2 / 3)
    assert content["classes"] == {"heart": [1]}
    printed = capsys.readouterr().out
    assert "0.6667" in printed
    assert "a (0.6667)" in printed


def test_all_outputs_on_request(ready):
    output = ready.images / "result.json"
    assert (
        exit_code(ready, "--output", output, "--images", ready.images, "--overlays", "--chart") == 0
    )
    assert output.is_file()
    assert output.with_suffix(".png").stat().st_size > 1000
    assert sorted(p.name for p in (ready.prediction / "overlays").iterdir()) == ["a.png", "b.png"]
    assert not (ready.prediction / "semisup_evaluation.json").exists()


def test_warnings_come_before_the_table(ready, cube, capsys):
    ready.write(ready.prediction, "a", cube * 7)
    assert exit_code(ready) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("warning: values that are no class")
    assert lines[0].endswith("in the predictions of: a (7)")
    assert lines[1].startswith("class ")


def test_exchanged_folders_are_refused_before_a_report_lies_among_the_references(ready, capsys):
    record = "predict_from_raw_data_args.json"
    (ready.reference / record).write_text("{}")
    assert exit_code(ready) == 2
    assert "give the references first" in capsys.readouterr().err
    assert not (ready.prediction / "semisup_evaluation.json").exists()
    (ready.prediction / record).write_text("{}")
    assert exit_code(ready) == 0, "one model's predictions against another's"
    assert "give the references first" in capsys.readouterr().out


def test_pictures_of_an_earlier_evaluation_are_named(ready, capsys):
    pictures = ["--images", ready.images, "--overlays"]
    assert exit_code(ready, "--chart", *pictures) == 0
    assert "note" not in capsys.readouterr().out
    assert exit_code(ready, *pictures, 1) == 0
    printed = capsys.readouterr().out
    assert "semisup_evaluation.png' is of an earlier evaluation" in printed
    assert "also has pictures of before: b.png" in printed


def test_overlays_of_the_worst_cases_into_a_folder(ready):
    target = ready.images / "pictures"
    options = ["--images", ready.images, "--overlays", 1, "--overlays-folder", target]
    assert exit_code(ready, *options) == 0
    assert [p.name for p in target.iterdir()] == ["a.png"]


def bad_size(folders):
    folders.write(folders.prediction, "a", np.zeros((2, 2, 2), np.uint8))


def missing(folders):
    (folders.prediction / "a.nii.gz").unlink()


def broken_image(folders):
    (folders.images / "a_0000.nii.gz").write_bytes(b"no image")


def undeclared(folders):
    folders.write(folders.reference, "a", np.full((8, 8, 8), 5, np.uint8))


def missing_image(folders):
    (folders.images / "a_0000.nii.gz").unlink()


def nothing(folders):
    pass


@pytest.mark.parametrize(
    ("damage", "options", "message"),
    [
        (bad_size, ["--chart"], "a: reference has size"),
        (missing, [], "a.nii.gz"),
        (undeclared, ["--chill"], "does not declare: 5"),
        (missing_image, ["--images", "IMAGES", "--overlays"], "a_0000.nii.gz"),
        (nothing, ["--overlays"], "--images"),
        (nothing, ["--images", "IMAGES"], "--overlays"),
        (nothing, ["-np", "0"], "-np 0"),
        (nothing, ["--images", "IMAGES", "--overlays", "-3"], "-3"),
        (nothing, ["--images", "IMAGES", "--overlays", "0"], "--overlays 0"),
        (nothing, ["--output", "nowhere/at/all.json"], "not a folder"),
        (nothing, ["--output", "IMAGES"], "file name"),
        (
            nothing,
            ["--images", "IMAGES", "--overlays", "--overlays-folder", __file__],
            "--overlays-folder",
        ),
        *[
            (
                nothing,
                ["--images", "IMAGES", "--overlays", "--overlays-folder", folder],
                "which pictures of the same names would replace",
            )
            for folder in ("REFERENCE", "PREDICTION", "IMAGES")
        ],
        (nothing, ["--dataset-json", "missing.json"], "missing.json"),
    ],
)
def test_bad_input_exits_with_2_and_writes_nothing(ready, capsys, damage, options, message):
    damage(ready)
    before = ready.written()
    named = {n.upper(): getattr(ready, n) for n in ("images", "reference", "prediction")}
    options = [named.get(option, option) for option in options]
    assert exit_code(ready, *options) == 2
    assert message in capsys.readouterr().err
    assert ready.written() == before


def test_results_outlive_pictures_that_cannot_be_drawn(ready, capsys):
    broken_image(ready)
    before = ready.written()
    options = ["--images", ready.images, "--overlays", "--chart"]
    assert exit_code(ready, *options) == 2
    printed = capsys.readouterr()
    assert "not readable" in printed.err
    assert "No picture was drawn" in printed.err
    report = ready.prediction / "semisup_evaluation.json"
    assert set(ready.written()) - set(before) == {report, report.with_suffix(".png")}
    assert f"written: {report}" in printed.out


@pytest.mark.parametrize(
    ("options", "message"),
    [([], "--output"), (["--images", "IMAGES", "--overlays"], "--overlays-folder")],
)
def test_folder_that_cannot_be_written_to_is_refused_first(
    ready, monkeypatch, capsys, options, message
):
    monkeypatch.setattr("os.access", lambda path, _: path != ready.prediction)
    options = [ready.images if option == "IMAGES" else option for option in options]
    assert exit_code(ready, *options) == 2
    error = capsys.readouterr().err
    assert f"'{ready.prediction}' cannot be written to" in error
    assert message in error


def test_chart_beside_predictions_that_are_pictures_is_none_of_them(folders, capsys):
    """nnU-Net 2.8.1 takes each .png for a prediction: a validation again would look for its label,
    and nnUNetv2_accumulate_crossval_results end with "more than one of your folds"."""
    folders.dataset_json(HEART, file_ending=".png")
    labels = np.zeros((8, 8), np.uint8)
    labels[2:5, 2:5] = 1
    for folder in (folders.reference, folders.prediction):
        io.imsave(folder / "a.png", labels, check_contrast=False)
    for _ in range(2):
        assert exit_code(folders, "--chart") == 0
        assert "no reference" not in capsys.readouterr().out
    assert "<svg" in (folders.prediction / "semisup_evaluation.svg").read_text()
    assert [path.name for path in folders.prediction.glob("*.png")] == ["a.png"]


def test_mistyped_folder_is_named_as_such(ready, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        main([str(ready.reference), str(tmp_path / "nope")])
    assert error.value.code == 2
    assert capsys.readouterr().err == (
        f"error: the prediction folder '{tmp_path / 'nope'}' does not exist. Check the path.\n"
    )


def test_help_names_the_rule_for_missing_classes(capsys):
    with pytest.raises(SystemExit) as error:
        main(["-h"])
    assert error.value.code == 0
    assert "left out of the means" in capsys.readouterr().out
