"""Files of a prediction appear whole, and a prediction that was killed goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch

from nnunet_semisup.inference import output as output_module
from nnunet_semisup.inference.calibration import FILE
from nnunet_semisup.inference.uncertainty import entropy
from tests.contract.predicting import contents, run

PROBABILITIES = ("--save_probabilities", "--disable_tta")


def test_a_killed_prediction_goes_on(model, tmp_path, monkeypatch):
    """Between any two files of a case: what lies there is whole, and the case is not done."""
    folder, images = model("nnUNetTrainerSupervised")
    output = tmp_path / "out"
    expected = contents(run(folder, images, output, *PROBABILITIES))
    for file in output.iterdir():
        file.unlink()
    publish, left = output_module.publish, [5]

    def publish_until_killed(temporary, target):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        publish(temporary, target)

    monkeypatch.setattr(output_module, "publish", publish_until_killed)
    with pytest.raises(KeyboardInterrupt):
        run(folder, images, output, *PROBABILITIES)
    done = {name for name in contents(output) if name.startswith("unl_")}
    assert len(done) == 4
    assert "unl_001.nii.gz" not in done, "the segmentation comes last"
    assert all(content == expected[name] for name, content in contents(output).items())
    monkeypatch.setattr(output_module, "publish", publish)
    (output / ".unl_001.partial").mkdir()  # What a kill leaves.
    (output / ".unl_001.partial" / "unl_001.nii.gz").write_bytes(b"half")
    first = (output / "unl_000.nii.gz").stat().st_mtime_ns
    run(folder, images, output, *PROBABILITIES, "--continue_prediction")
    assert (output / "unl_000.nii.gz").stat().st_mtime_ns == first, "kept"
    found = contents(output)
    assert not list(output.glob(".*"))
    changed = {name for name, content in expected.items() if found[name] != content}
    assert changed == {"predict_from_raw_data_args.json"}, "it records that it was continued"


def test_a_case_without_its_probabilities_is_not_done(model, tmp_path):
    """nnU-Net 2.8.1 looks for the npz alone: one that lacks the pkl stays so for ever."""
    folder, images = model("nnUNetTrainerSupervised")
    output = run(folder, images, tmp_path / "out", *PROBABILITIES)
    (output / "unl_001.pkl").unlink()
    kept = (output / "unl_000.npz").stat().st_mtime_ns
    run(folder, images, output, *PROBABILITIES, "--c")
    assert (output / "unl_001.pkl").is_file()
    assert (output / "unl_000.npz").stat().st_mtime_ns == kept


def test_without_continuing_all_is_made_anew(model, tmp_path):
    folder, images = model("nnUNetTrainerSupervised")
    output = run(folder, images, tmp_path / "out")
    (output / "unl_000.nii.gz").write_bytes(b"broken")
    run(folder, images, output, "--c")
    assert (output / "unl_000.nii.gz").read_bytes() == b"broken"
    run(folder, images, output)
    assert (output / "unl_000.nii.gz").read_bytes() != b"broken"


@pytest.mark.parametrize(
    ("trainer", "kind", "spread", "ending"),
    [
        ("nnUNetTrainerMeanTeacher", "labels3d", "weights", ".nii.gz"),
        ("nnUNetTrainerCPS", "regions3d", "members", ".nii.gz"),
        ("nnUNetTrainerMCNet", "labels2d", "members", ".tif"),
        ("nnUNetTrainerSupervised", "ignore3d", "mirrors", ".nii.gz"),
    ],
)
def test_uncertainty_is_written_beside(model, tmp_path, trainer, kind, spread, ending):
    """The segmentation stays as it is; the map has its geometry, and its temperature is kept."""
    folder, images = model(trainer, kind)
    expected = contents(run(folder, images, tmp_path / "without"))
    output = run(folder, images, tmp_path / "out", "--uncertainty", "--verbose")
    segmentations = [n for n in expected if n.startswith("unl_")]
    assert len(segmentations) == 2
    assert all((output / name).read_bytes() == expected[name] for name in segmentations)
    for name in segmentations:
        file = output / "uncertainty" / f"{name[:7]}{ending}"
        found = SimpleITK.ReadImage(str(file))
        values = SimpleITK.GetArrayFromImage(found)
        assert values.dtype == np.float32
        assert 0 < values.mean() < 1
        assert values.min() >= 0
        assert values.max() <= 1.0001
        if ending == ".nii.gz":
            segmentation = SimpleITK.ReadImage(str(output / name))
            for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
                assert getattr(found, what)() == getattr(segmentation, what)()
    stored = json.loads((folder / "fold_0" / FILE).read_text(encoding="utf-8"))
    ((setting, record),) = stored.items()
    assert spread in setting
    assert record["cases"] == ["lab_002"]
    assert record["nll_after"] <= record["nll_before"]
    assert not list(output.rglob(".*"))


def test_a_map_is_the_entropy_of_the_mean(model, tmp_path, capsys):
    """Of the two members' predictions, by nnU-Net's own probabilities of each."""
    folder, images = model("nnUNetTrainerCPS")
    (folder / "plans.json").write_text(
        (folder / "plans.json").read_text().replace('"Dataset801_labels3d"', '"Dataset899_None"')
    )
    both = []
    for number in ("1", "2"):
        output = tmp_path / f"out{number}"
        run(folder, images, output, *PROBABILITIES, "--members", number)
        both.append(torch.from_numpy(np.load(output / "unl_000.npz")["probabilities"]))
    output = run(folder, images, tmp_path / "out", "--uncertainty", "members", "--disable_tta")
    assert "uncalibrated (temperature 1): there is no '" in capsys.readouterr().out
    found = SimpleITK.GetArrayFromImage(
        SimpleITK.ReadImage(str(output / "uncertainty" / "unl_000.nii.gz"))
    )
    expected = entropy(torch.stack(both).mean(0), regions=False).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_temperature_is_used_again_until_the_checkpoint_changes(model, tmp_path, capsys):
    folder, images = model("nnUNetTrainerCPS")
    run(folder, images, tmp_path / "a", "--uncertainty")
    assert "Fitting the temperature" in capsys.readouterr().out
    maps = contents(tmp_path / "a" / "uncertainty")
    run(folder, images, tmp_path / "b", "--uncertainty")
    assert "Fitting the temperature" not in capsys.readouterr().out
    assert contents(tmp_path / "b" / "uncertainty") == maps
    os.utime(folder / "fold_0" / "checkpoint_final.pth", (1, 1))
    run(folder, images, tmp_path / "c", "--uncertainty")
    assert "Fitting the temperature" in capsys.readouterr().out


def test_a_case_without_its_map_is_not_done(model, tmp_path):
    folder, images = model("nnUNetTrainerCPS")
    output = run(folder, images, tmp_path / "out", "--uncertainty")
    Path(output, "uncertainty", "unl_001.nii.gz").unlink()
    run(folder, images, output, "--uncertainty", "--c")
    assert Path(output, "uncertainty", "unl_001.nii.gz").is_file()


def test_several_folds_are_compared(model, tmp_path, capsys):
    folder, images = model("nnUNetTrainerMeanTeacher")
    content = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)
    content["network_weights"] = {k: v + 0.1 for k, v in content["network_weights"].items()}
    (folder / "fold_1").mkdir()
    torch.save(content, folder / "fold_1" / "checkpoint_final.pth")
    output = run(folder, images, tmp_path / "out", "-f", "0", "1", "--uncertainty")
    assert "no case is held out from all folds" in capsys.readouterr().out
    assert len(list((output / "uncertainty").iterdir())) == 2


@pytest.mark.parametrize(("kind", "more"), [("labels2d", ("--uncertainty",)), ("regions3d", ())])
def test_overlays_are_drawn_below_the_predictions(model, tmp_path, kind, more):
    folder, images = model("nnUNetTrainerMeanTeacher", kind)
    output = run(folder, images, tmp_path / "out", "--overlays", *more)
    pictures = sorted((output / "overlays").iterdir())
    assert [path.name for path in pictures] == ["unl_000.png", "unl_001.png"]
    assert all(
        len(np.unique(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(p))))) > 20
        for p in pictures
    )
