"""The ``plan`` command: what is wrong is said before anything is kept."""

from __future__ import annotations

import json

import pytest

from nnunet_semisup.benchmark import prepare
from nnunet_semisup.benchmark.design import Layout, Row, read_design
from nnunet_semisup.benchmark.execute import Place, check_places
from nnunet_semisup.benchmark.prepare import plan
from nnunet_semisup.benchmark.row_checks import rows_that_train
from nnunet_semisup.cli.benchmark import main
from nnunet_semisup.errors import UserError
from nnunet_semisup.networks import bfloat16
from tests.helpers import nnunet_folders
from tests.unit.benchmark.shared import commands_in_process, make_dataset, make_design

SHORT = ("--steps", "4", "--steps-per-epoch", "2", "-np", "1", "--threads", "1", "--budgets", "2")


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    return make_dataset(nnunet_folders(tmp_path, monkeypatch).raw)


def plan_command(folder, *arguments):
    """Return the exit code of ``plan`` with nnU-Net's commands in this process."""
    given = ("-d", "950", "-device", "cpu", *SHORT, *arguments)
    with commands_in_process(), pytest.raises(SystemExit) as ended:
        main(["plan", str(folder), *given])
    return ended.value.code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainers", "UAMT:no=1"], "nnUNetTrainerUAMT has no hyper-parameter no"),
        (["--trainers", "UAMT:ema_decay=7"], "ema_decay=7.0 must be between 0 and 1"),
        (["--trainers", "MATCH:facets=2"], "consistent_facets=3 of facets=2"),
        (["--trainers", "UAMT:num_epochs=3"], "num_epochs is the same for all rows"),
        (["--trainers", "UAMT:seed=3,ema_decay=0.9"], "seed is the same for all rows"),
        (["--trainers", "UAMT+no"], "There is no insert 'no'"),
        (["-c", "mine"], "There is no configuration mine"),
        (["-c", "3d_cascade_fullres"], "3d_cascade_fullres cannot be used with unlabeled cases"),
        (["-pl", "NoPlanner"], "There is no planner NoPlanner"),
        (["--budgets", "4"], "give numbers from 1 to 3"),
        (["--equal-operations", "0.5"], "'0.5' is no number above 1"),
        (["--seeds", "-1"], "'-1' is no whole number from 0 on"),
        (["--steps-per-epoch", "0"], "'0' is no whole number from 1 on"),
        (["--spacing", "1", "0", "1"], "'0' is no number above 0"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_written(
    dataset, tmp_path, capsys, arguments, message
):
    assert plan_command(tmp_path / "benchmark", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "benchmark").exists()


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    check_places([Place("cpu")])
    with pytest.raises(UserError, match="-device cuda: PyTorch finds none here"):
        check_places([Place("cuda")])
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    check_places([Place("cuda", 0), Place("cuda", 1)])
    with pytest.raises(UserError, match="--gpus 2: this machine has 0 to 1"):
        check_places([Place("cuda", 0), Place("cuda", 2)])
    with pytest.raises(UserError, match="--gpus goes with -device cuda, not with cpu"):
        check_places([Place("cpu", 0)])


@pytest.mark.parametrize("part", ["plan", "report"])
def test_a_file_is_no_folder_of_a_benchmark(dataset, tmp_path, capsys, part):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        main([part, str(tmp_path / "file"), *(["-d", "950", *SHORT] if part == "plan" else [])])
    assert ended.value.code == 2


def test_a_processor_without_bfloat16_is_told_before_the_plan(
    dataset, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(bfloat16, "lacks_instructions", lambda: True)
    (tmp_path / "file").touch()
    for arguments, told in (((), 0), (("--bfloat16",), 1)):
        assert plan_command(tmp_path / "file", *arguments) == 2
        assert capsys.readouterr().err.count("no instructions for bfloat16") == told


def test_a_folder_that_cannot_be_locked_is_named(dataset, tmp_path, capsys, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("nnunet_semisup.preparation.lock.FileLock.acquire", refuse)
    assert plan_command(tmp_path / "benchmark") == 2
    told = f"{tmp_path / 'benchmark.lock'} cannot be written (Permission denied)"
    assert told in capsys.readouterr().err
    assert not (tmp_path / "benchmark").exists()


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A benchmark's folder whose budget is planned."""
    root = tmp_path_factory.mktemp("planned")
    with pytest.MonkeyPatch.context() as patch, commands_in_process():
        dataset = make_dataset(nnunet_folders(root, patch).raw)
        plan(Layout(root / "benchmark"), make_design(dataset), 2, 1)
    return dataset, Layout(root / "benchmark")


def test_rows_that_the_plans_cannot_serve_are_named_together(planned):
    dataset, layout = planned
    rows = (
        Row("nnUNetTrainerMATCH"),
        Row("nnUNetTrainerNSDA", inserts=("nsda",)),
        Row("nnUNetTrainerUAMT", inserts=("gaussian_field",)),
        Row("nnUNetTrainerUAMT", inserts=("nsda:x=1",)),
        Row("nnUNetTrainerUAMT", "labeled_loss=lomix"),
        Row("nnUNetTrainerUAMTText", "text_model=features"),
    )
    with pytest.raises(UserError) as caught:
        rows_that_train(layout, make_design(dataset, *rows), ())
    text = str(caught.value)
    for row in rows:
        assert f"- {row.title}: " in text
    for why in (
        "trains in 2D",
        "already has nsda",
        "for 2D networks",
        "no option x",
        "two outputs",
    ):
        assert why in text
    assert "NNUNET_SEMISUP_TEXT_FEATURES" in text
    fit = (Row("nnUNetTrainerUAMT", inserts=("nsda",)), Row("nnUNetTrainerDKUXNet"))
    design = make_design(dataset, *rows, *fit)
    kept, left_out = rows_that_train(layout, design, rows)
    assert kept == [Row("nnUNetTrainerSupervised"), *fit]
    assert len(left_out) == len(rows)
    with pytest.raises(UserError, match="is planned without 3d_lowres"):
        rows_that_train(layout, make_design(dataset, configuration="3d_lowres"), ())


def test_trainers_that_partial_labels_are_not_for_are_refused(planned):
    dataset, layout = planned
    before = (dataset.folder / "dataset.json").read_text()
    labels = {"background": 0, "blob": 1, "other": 2}
    partial = dataset.folder / "labeled_classes.json"
    try:
        changed = {**json.loads(before), "labels": labels}
        (dataset.folder / "dataset.json").write_text(json.dumps(changed))
        partial.write_text(json.dumps({"lab_000": ["blob"]}))
        rows = (Row("nnUNetTrainerPseudoLabel"), Row("nnUNetTrainerCPS"))
        with pytest.raises(UserError, match=r"nnUNetTrainerCPS: .*not annotated for back") as told:
            rows_that_train(layout, make_design(dataset, *rows), ())
        assert "nnUNetTrainerPseudoLabel: " not in str(told.value)
    finally:
        (dataset.folder / "dataset.json").write_text(before)
        partial.unlink()


def test_a_plan_with_a_single_output_is_refused(planned):
    """Its loss is NaN from the first step, of labels alone, too."""
    dataset, layout = planned
    plans_file = layout.preprocessed(make_design(dataset), 2) / "nnUNetPlans.json"
    plans = plans_file.read_text()
    small = json.loads(plans)
    network = small["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    network["strides"] = network["strides"][:2]
    plans_file.write_text(json.dumps(small))
    try:
        with pytest.raises(UserError, match=r"nnUNetTrainerSupervised: .*one output"):
            rows_that_train(layout, make_design(dataset), ())
    finally:
        plans_file.write_text(plans)


def test_a_design_is_kept_when_it_is_planned_and_not_before(dataset, tmp_path, capsys, monkeypatch):
    """Also: names with blanks, a relative folder, JSON that is nothing else, more rows later."""
    place = tmp_path / "a b"
    place.mkdir()
    monkeypatch.chdir(place)
    assert plan_command(".", "-c", "3d_lowres") == 2
    assert "is planned without 3d_lowres (-c). Possible: 2d, 3d_fullres" in capsys.readouterr().err
    assert not (place / "benchmark.json").exists()
    with monkeypatch.context() as patch:
        stopped = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # noqa: E731
        patch.setattr(prepare, "_call", stopped)
        with pytest.raises(KeyboardInterrupt):
            main(["plan", ".", "-d", "950", "-device", "cpu", *SHORT])
    assert not (place / "benchmark.json").exists()
    assert not (tmp_path / "a b.lock").exists()
    capsys.readouterr()
    rows = ("--trainers", "UAMT+nsda", "PseudoLabel", "--seeds", "1", "1")
    assert plan_command(".", *rows, "--features", "4", "8", "8", "--json") == 0
    told = capsys.readouterr().out
    content = json.loads(told[told.index('{\n "runs"') :])
    assert len(content["runs"]) == 3
    assert f"run '{place}'" in content["text"]
    plans = json.loads(next(place.glob("labels2/preprocessed/*/nnUNetPlans.json")).read_text())
    network = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    assert network["features_per_stage"] == [4, 8, 8], "of the plan before, which was not kept"
    more = ("--features", "4", "8", "8", "--equal-operations", "2", "--budgets", "2", "3")
    assert plan_command(place, "--trainers", "DTC", *more) == 0
    design = read_design(Layout(place))
    titles = ["Supervised", "UAMT+nsda", "PseudoLabel", "DTC", "Supervised x2 steps"]
    assert [row.title.removeprefix("nnUNetTrainer") for row in design.rows] == titles
    assert (design.budgets, design.seeds) == ((2, 3), (1, 0))
