"""A model is packed as nnU-Net installs it, and only if it predicts as it was trained."""

from __future__ import annotations

import io
import json
import os
import zipfile

import pytest
import torch
from nnunetv2.model_sharing.model_import import install_model_from_zip_file
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_semisup.cli.export import build_parser
from nnunet_semisup.cli.export import export as run_export
from nnunet_semisup.errors import UserError
from nnunet_semisup.sharing import export as module
from nnunet_semisup.trainers.vqseg import nnUNetTrainerVQSeg
from nnunet_semisup.training.checkpoint import KEY
from tests.contract.predicting import contents, stock
from tests.unit.sharing.conftest import DATASET, SECRETS, write_fold

NAME = f"{DATASET}/nnUNetTrainer__nnUNetPlans__2d"


def members(file):
    """The bytes of every member, of checkpoints those of their own members."""
    found = {}
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            found[name] = archive.read(name)
    for name in [name for name in found if name.endswith(".pth")]:
        with zipfile.ZipFile(io.BytesIO(found[name])) as inner:
            found |= {f"{name}/{one}": inner.read(one) for one in inner.namelist()}
    return found


def card(file, name=NAME):
    return json.loads(members(file)[f"{name}/model_card.json"])


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_nnunet_installs_it_and_predicts_the_same_bytes(
    pack, trained, images, results, tmp_path, capsys
):
    install_model_from_zip_file(str(pack()))
    capsys.readouterr()
    expected = contents(stock(trained, images, tmp_path / "expected"))
    found = contents(stock(results / NAME, images, tmp_path / "found"))
    cases = [name for name in expected if name.startswith("case")]
    assert len(cases) == 2
    assert all(found[name] == expected[name] for name in cases)


def test_only_what_predicts_is_in_the_checkpoint(pack, results):
    install_model_from_zip_file(str(pack()))
    file = results / NAME / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=True)
    assert content["trainer_name"] == "nnUNetTrainer"
    assert set(content["init_args"]) == {"plans", "configuration", "fold", "dataset_json"}
    assert not {KEY, "optimizer_state", "logging"} & set(content)


def test_no_case_no_path_and_no_machine_travels(pack, trained, terms):
    (trained / "fold_0" / "progress.png").write_bytes(b"picture")
    file = pack(terms=terms)
    for name, content in members(file).items():
        for secret in (*SECRETS, "patient_0"):
            assert secret.encode() not in content, name
    names = {name for name in members(file) if ".pth/" not in name}
    assert names == {
        f"{NAME}/{own}"
        for own in (
            *("fold_0/checkpoint_final.pth", "fold_0/progress.png", "plans.json", "dataset.json"),
            *("model_card.json", "MODEL_CARD.md"),
        )
    }


def test_card_tells_what_was_recorded(pack, terms):
    file = pack(terms=terms)
    content = card(file)
    assert content["license"] == "CC-BY-4.0"
    assert content["model"]["trained_by"] == "nnUNetTrainerCPS"
    assert content["model"]["needs"] == []
    fold = content["training"]["0"]
    assert (fold["labeled"], fold["unlabeled"], fold["epochs"]) == (2, 1, 2)
    assert fold["settings"] == {"seed": 3, "num_epochs": 2}
    assert fold["started_from"] == "nnUNetTrainer"
    (one,) = content["metrics"]
    dice = one["classes"]["a"]["Dice"]
    assert dice["mean"] == pytest.approx(0.81)
    assert 0.8 <= dice["interval"][0] < 0.81 < dice["interval"][1] <= 0.82
    assert one["classes"]["b"]["Dice"] == {"mean": None, "interval": None, "cases": 0}
    page = members(file)[f"{NAME}/MODEL_CARD.md"].decode()
    for said in ("CC-BY-4.0", "Doe et al., 2026", "Siemens Aera", "0.8100 (", "CC BY 4.0"):
        assert said in page
    assert f"-d {DATASET} -tr nnUNetTrainer -p nnUNetPlans -c 2d -f 0" in page


def test_what_nobody_said_is_asked_for(pack, capsys):
    pack()
    said = capsys.readouterr().out
    for flag in ("--license", "--citation", "--scanners"):
        assert flag in said


def test_same_model_gives_the_same_zip(pack):
    assert pack("one.zip").read_bytes() == pack("two.zip").read_bytes()


def test_folds_without_a_common_case_are_one_cross_validation(pack, trained):
    write_fold(trained, 1)
    content = card(pack(folds=(0, 1)))
    (one,) = content["metrics"]
    assert (one["evaluated"], one["cases"]) == ("cross-validation of 2 folds", 6)
    assert one["classes"]["a"]["Dice"]["cases"] == 6


def test_folds_that_validated_the_same_cases_are_told_apart(pack, trained):
    write_fold(trained, 1)
    first = (trained / "fold_0" / "validation" / "summary.json").read_text()
    (trained / "fold_1" / "validation" / "summary.json").write_text(first)
    assert len(card(pack(folds=(0, 1)))["metrics"]) == 2


def test_another_checkpoint_has_not_the_scores_of_the_final_one(pack, trained, capsys):
    fold = trained / "fold_0"
    (fold / "checkpoint_final.pth").rename(fold / "checkpoint_best.pth")
    assert card(pack(checkpoint="checkpoint_best.pth"))["metrics"] == []
    assert "validates the final weights, not checkpoint_best.pth" in capsys.readouterr().out


def test_a_network_of_this_package_keeps_its_trainer(pack, trained, capsys):
    """Stock nnU-Net cannot build it, so that the card and the command say what it needs."""
    (trained / "fold_0").rename(trained / "before")
    write_fold(trained, 0, nnUNetTrainerVQSeg, "nnUNetTrainerVQSeg")
    content = card(pack(), f"{DATASET}/nnUNetTrainerVQSeg__nnUNetPlans__2d")
    assert content["model"]["trainer"] == "nnUNetTrainerVQSeg"
    assert content["model"]["needs"] == ["nnunet-semisup"]
    assert "needs nnunet-semisup" in capsys.readouterr().out


def test_a_model_of_stock_nnunet_is_packed_too(pack, trained):
    (trained / "fold_0").rename(trained / "before")
    write_fold(trained, 0, nnUNetTrainer, "nnUNetTrainer")
    content = card(pack())
    assert content["model"]["trained_by"] == "nnUNetTrainer"
    assert content["training"]["0"]["nnunet_semisup"] is None


def test_files_that_predict_otherwise_are_not_packed(pack, tmp_path, monkeypatch):
    light = module.light_checkpoint

    def other(model, number):
        content = light(model, number)
        weights = content["network_weights"]
        name = next(name for name in weights if name.endswith("seg_layers.1.bias"))
        return {**content, "network_weights": {**weights, name: weights[name] + 1e-6}}

    monkeypatch.setattr(module, "light_checkpoint", other)
    with pytest.raises(UserError, match="fold 0 predicts otherwise as nnUNetTrainer"):
        pack()
    assert not (tmp_path / "model.zip").exists()
    assert leftovers(tmp_path) == []


def test_everything_that_is_missing_is_told_at_once(pack, trained, tmp_path):
    (trained / "plans.json").unlink()
    (trained / "dataset.json").write_text("{")
    (tmp_path / "model.zip").write_text("mine")
    with pytest.raises(UserError) as raised:
        pack(folds=(0, 3), evaluation=tmp_path / "none.json")
    for said in (
        "plans.json: No such file",
        "dataset.json: not a JSON file",
        "fold_3/checkpoint_final.pth: there is no such file",
        "folds with a checkpoint_final.pth: fold_0",
        "exists, and is not replaced",
        "--evaluation: ",
    ):
        assert said in str(raised.value)
    assert (tmp_path / "model.zip").read_text() == "mine"
    assert leftovers(tmp_path) == []


class Harm:
    """Make a folder when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def test_code_in_a_checkpoint_is_named_and_not_run(pack, trained, tmp_path):
    file = trained / "fold_0" / "checkpoint_final.pth"
    torch.save({"network_weights": {}, "x": Harm(tmp_path / "made")}, file)
    with pytest.raises(UserError, match=r"holds \w+\.mkdir, which is code"):
        pack()
    assert not (tmp_path / "made").exists()


def test_a_trainer_that_is_not_here_is_named(pack, trained):
    (trained / "fold_0").rename(trained / "before")
    write_fold(trained, trainer="nnUNetTrainerOfNobody")
    with pytest.raises(UserError, match="the trainer nnUNetTrainerOfNobody is not found here"):
        pack()


def evaluation(file, count, shift=0.0):
    """Write what nnUNetv2_semisup_evaluate writes, as far as it is read."""
    values = {"Jaccard": 0.5, "HD95": 3.0, "ASD": 1.0, "reference_voxels": 9}
    one = {"shape": [24, 24], "spacing": [1, 1], "prediction_sha256": "", "ignored_voxels": 0}
    cases = {
        f"patient_carl_{i}": {
            **one,
            "classes": {"a": {"Dice": 0.9 - i / 10 - shift, **values}, "b": {"Dice": None}},
        }
        for i in range(count)
    }
    content = {"format_version": 1, "distance_unit": "mm", "classes": {"a": [1], "b": [2]}}
    file.write_text(json.dumps({**content, "cases": cases}))
    return file


def test_evaluations_of_this_package_come_first_and_held_out_cases_beside_them(
    pack, trained, tmp_path
):
    evaluation(trained / "fold_0" / "validation" / "semisup_evaluation.json", 2)
    file = pack(evaluation=evaluation(tmp_path / "test.json", 4, shift=0.1))
    first, second = card(file)["metrics"]
    assert (first["evaluated"], first["cases"]) == ("validation of fold 0", 2)
    assert (second["evaluated"], second["cases"]) == ("held-out cases", 4)
    assert second["classes"]["a"]["Dice"]["mean"] == pytest.approx(0.65)
    assert second["classes"]["a"]["HD95"] == {"mean": 3.0, "interval": [3.0, 3.0], "cases": 4}
    content = b"".join(members(file).values())
    assert b"HD95 (mm)" in content
    assert b"patient_carl" not in content


def test_folds_of_different_trainers_are_refused(pack, trained):
    write_fold(trained, 1, trainer="nnUNetTrainerDTC")
    with pytest.raises(UserError, match="folds 1 have another trainer than the first"):
        pack(folds=(0, 1))


def test_the_command_finds_a_model_by_its_names(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(trained.parents[1]))
    named = ("-d", "901", "-tr", "nnUNetTrainerCPS", "-c", "2d", "-f", "0", "0")
    run_export(build_parser().parse_args([*named, "-o", str(tmp_path / "model.zip")]))
    assert card(tmp_path / "model.zip")["model"]["folds"] == ["0"]
    with pytest.raises(UserError, match=r"give the model with -m.*-f one: give numbers"):
        run_export(build_parser().parse_args(["-o", "x.zip", "-f", "one"]))


def test_labels_that_a_round_predicted_are_no_annotations(pack, trained):
    """A round's data set lies beside its results, as rounds write it."""
    raw = trained.parents[1].with_name("nnUNet_raw") / DATASET
    raw.mkdir(parents=True)
    told = {"patient_anna": "annotated", "patient_bert": "predicted", "patient_dora": "predicted"}
    cases = {case: {"label": {"origin": origin}} for case, origin in told.items()}
    (raw / "conversion_report.json").write_text(json.dumps({"cases": cases}))
    file = pack()
    content = card(file)
    assert (content["training"]["0"]["labeled"], content["training"]["0"]["predicted"]) == (1, 1)
    assert content["data"]["of_these_predicted"] == 2
    page = members(file)[f"{NAME}/MODEL_CARD.md"].decode()
    assert "of these labels predicted" in page
    assert "patient_" not in page
