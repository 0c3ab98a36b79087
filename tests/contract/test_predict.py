"""``nnUNetv2_semisup_predict`` on every method: nnU-Net's files, and the weights that it names."""

from __future__ import annotations

import argparse
import json
import shutil

import pytest
import torch
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.model_sharing.model_import import install_model_from_zip_file

from nnunet_semisup.cli.predict import build_parser, main, predict
from nnunet_semisup.errors import UserError
from nnunet_semisup.inference.predictor import Choice, SemisupPredictor
from nnunet_semisup.inference.stored import Stored
from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.registry import METHODS, find_method
from nnunet_semisup.sharing.export import Export, export
from tests.contract.conftest import each_method, each_once, each_pair
from tests.contract.predicting import SEQUENTIAL, contents, run, stock

WITH_MEMBERS = {
    "nnUNetTrainerCPS": 2,
    "nnUNetTrainerABD": 2,
    "nnUNetTrainerMCF": 2,
    "nnUNetTrainerBSNet": 2,
    "nnUNetTrainerMLRP": 2,
    "nnUNetTrainerVCLIPSeg": 2,
    "nnUNetTrainerMCNet": 2,
    "nnUNetTrainerMCNetPlus": 3,
    "nnUNetTrainerTextSemiSeg": 2,
}


@each_pair(each_once(METHODS, ("labels2d", "regions2d", "labels3d")))
def test_files_are_those_of_nnunet(model, tmp_path, method, kind):
    """Every byte, its records included, from checkpoints of every method."""
    folder, images = model(method, kind)
    output = tmp_path / "out"
    expected = contents(stock(folder, images, output, save_probabilities=True))
    shutil.rmtree(output)
    assert contents(run(folder, images, output, "--save_probabilities")) == expected
    assert {name.split(".")[-1] for name in expected} >= {"npz", "pkl", "json"}


def test_parts_divide_the_cases(model, tmp_path):
    """Without processes, too, where nnU-Net's own command predicts every case in each part."""
    folder, images = model("nnUNetTrainerPseudoLabel", "labels2d")
    output = tmp_path / "out"
    for part in (0, 1):
        run(folder, images, output, "-num_parts", "2", "-part_id", str(part))
        assert len(list(output.glob("unl_*.png"))) == part + 1
    assert contents(output) == contents(run(folder, images, tmp_path / "whole")) | {
        name: value for name, value in contents(output).items() if name.endswith("args.json")
    }


def logits_of(folder, choice, image, mirroring=False):
    """Predict one patch of random voxels."""
    predictor = SemisupPredictor(
        use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.choice = choice
    predictor.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
    predictor.network.load_state_dict(predictor.list_of_parameters[0])
    predictor.network.eval()
    with torch.inference_mode():
        return predictor.network(image)


def image_for(trainer):
    """Return one patch of random voxels, as the trainer's network takes it."""
    shape = trainer.num_input_channels, *trainer.configuration_manager.patch_size
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))


@each_method([m for m in METHODS if m.has_teacher])
def test_student_and_teacher_are_those_of_the_training(build, model, method):
    folder, _ = model(method)
    trainer = build(method, "labels3d", start=False, num_iterations_per_epoch=3)
    trainer.load_checkpoint(str(folder / "fold_0" / "checkpoint_final.pth"))
    teacher = getattr(trainer.teacher.module, "predictor", trainer.teacher.module)
    networks = {"student": trainer.student, "teacher": teacher}
    image = image_for(trainer)
    found = {}
    for kind, network in networks.items():
        found[kind] = logits_of(folder, Choice(weights=kind), image)
        trainer.set_deep_supervision_enabled(False)
        network.eval()
        with torch.inference_mode():
            assert torch.equal(found[kind], network(image)), kind
    assert not torch.equal(found["student"], found["teacher"])
    assert torch.equal(found["teacher"], logits_of(folder, Choice(), image))


@pytest.mark.parametrize("trainer", WITH_MEMBERS)
def test_members_are_those_of_the_training(build, model, trainer):
    folder, _ = model(trainer)
    stored = Stored.read(folder / "fold_0" / "checkpoint_final.pth")
    assert stored.number_of_members == WITH_MEMBERS[trainer]
    training = build(find_method(trainer), "labels3d", start=False, num_iterations_per_epoch=3)
    training.load_checkpoint(str(folder / "fold_0" / "checkpoint_final.pth"))
    network, image = training.training_network, image_for(training)
    training.set_deep_supervision_enabled(False)
    network.eval()
    with torch.inference_mode():
        inner = getattr(network, "inner", network)
        expected = [part.logits for part in inner(image).parts]
    assert len(expected) == WITH_MEMBERS[trainer]
    for number, logits in enumerate(expected):
        assert torch.equal(logits_of(folder, Choice(member=number), image), logits), number
    mean = torch.stack([probabilities(logits, False) for logits in expected]).mean(0)
    found = probabilities(logits_of(folder, Choice(member="mean"), image), False)
    torch.testing.assert_close(found, mean)


@each_method([m for m in METHODS if m.trainer not in WITH_MEMBERS])
def test_every_method_with_several_members_is_known(model, method):
    folder, _ = model(method)
    assert Stored.read(folder / "fold_0" / "checkpoint_final.pth").number_of_members == 1


@each_method(METHODS)
def test_every_method_is_shared_under_the_trainer_that_predicts(model, tmp_path, method):
    """With equal logits, which the export demands; and other packages where the row names none."""
    folder, _ = model(method)
    file = tmp_path / "model.zip"
    card = export(Export(folder, (0,), "checkpoint_final.pth", file))
    assert card["model"]["trainer"] == method.predicts_as
    assert card["model"]["trained_by"] == method.trainer
    plain = method.predicts_as == "nnUNetTrainer"
    assert card["model"]["needs"] == ([] if plain else ["nnunet-semisup"])
    assert (card["texts"] is None) == (method.family != "text")
    assert (card["training"]["0"]["labeled"], card["training"]["0"]["validated_on"]) == (2, 1)


def test_the_command_predicts_by_what_was_chosen(model, tmp_path):
    """A checkpoint whose student is another network: the files are those of that network."""
    folder, images = model("nnUNetTrainerMeanTeacher")
    file = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    default = content["network_weights"]
    swapped = {key: -value for key, value in default.items()}
    content["nnunet_semisup"]["training_network"] = swapped
    torch.save(content, file)
    found = contents(run(folder, images, tmp_path / "out", "--weights", "student"))
    content["network_weights"] = swapped
    torch.save(content, file)
    expected = contents(stock(folder, images, tmp_path / "stock"))
    cases = [name for name in expected if name.endswith(".nii.gz")]
    assert cases
    assert all(found[name] == expected[name] for name in cases)


@pytest.mark.parametrize(
    ("trainer", "more", "said"),
    [
        ("nnUNetTrainerCPS", ("--weights", "teacher"), "CPS has no such weights.*it has student"),
        ("nnUNetTrainerSupervised", ("--weights", "student"), "it has only the default"),
        ("nnUNetTrainerCPS", ("--members", "3"), "give first, mean or 1 to 2"),
        ("nnUNetTrainerDTC", ("--members", "mean"), "DTC trains one network"),
        ("nnUNetTrainerCPS", ("--uncertainty", "weights"), "possible here: members, mirrors"),
        ("nnUNetTrainerDTC", ("--uncertainty", "--disable_tta"), "none is possible here"),
        ("nnUNetTrainerDTC", ("-f", "0", "3"), r"lacks fold_3/checkpoint_final.pth \(.*: fold_0\)"),
        ("nnUNetTrainerDTC", ("-chk", "x.pth"), "lacks fold_0/x.pth.*no fold has one"),
    ],
)
def test_what_the_model_cannot_give_is_refused(model, tmp_path, trainer, more, said):
    folder, images = model(trainer)
    with pytest.raises(UserError, match=said):
        run(folder, images, tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


def test_all_faults_are_told_at_once(model, tmp_path):
    folder, images = model("nnUNetTrainerCPS", "regions3d")
    next(images.glob("unl_000_0001*")).unlink()
    shutil.copy(next(images.glob("unl_001_0000*")), images / "unl_001_0002.nii.gz")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError) as raised:
        run(folder, images, tmp_path / "out", "--weights", "teacher", "--members", "7")
    for said in (
        "unl_000: there is no unl_000_0001.nii.gz",
        "no channel for unl_001_0002",
        "--weights teacher",
        "--members 7",
        "out' is a file",
    ):
        assert said in str(raised.value)


def test_images_of_another_kind_and_the_folder_of_the_images_are_refused(model, tmp_path):
    folder, images = model("nnUNetTrainerCPS")
    with pytest.raises(UserError, match="-o is the folder of the images"):
        run(folder, images, images)
    with pytest.raises(UserError, match=r"has no images CASE_0000\.nii\.gz"):
        run(folder, folder, tmp_path / "out")
    with pytest.raises(UserError, match="there is no model folder"):
        run(folder / "x", images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_background_processes_write_the_same(model, tmp_path):
    """With nnU-Net's preprocessing and export processes, as the command runs by default."""
    folder, images = model("nnUNetTrainerCPS")
    expected = contents(stock(folder, images, tmp_path / "stock"))
    found = contents(run(folder, images, tmp_path / "out", "-npp", "1", "-nps", "1"))
    assert set(found) == set(expected)
    assert all(found[name] == expected[name] for name in found if not name.endswith("args.json"))


def test_a_model_is_found_by_its_names_and_after_its_zip_was_installed(
    model, tmp_path, monkeypatch
):
    """``-d -tr -c -f`` in nnUNet_results, which a zip fills that nnU-Net exported."""
    folder, images = model("nnUNetTrainerCPS")
    name = "Dataset801_labels3d/nnUNetTrainerCPS__nnUNetPlans__3d_fullres"
    shutil.copytree(folder, tmp_path / "results" / name)
    archive = shutil.make_archive(str(tmp_path / "model"), "zip", tmp_path / "results")
    installed = tmp_path / "installed"
    installed.mkdir()
    monkeypatch.setenv("nnUNet_results", str(installed))
    install_model_from_zip_file(archive)
    expected = contents(run(folder, images, tmp_path / "expected", "--members", "2"))
    named = ("-d", "801", "-tr", "nnUNetTrainerCPS", "-c", "3d_fullres", "-f", "0")
    where = ("-i", str(images), "-o", str(tmp_path / "out"), *SEQUENTIAL)
    predict(build_parser().parse_args([*where, *named, "--members", "2"]))
    found = contents(tmp_path / "out")
    assert found["unl_000.nii.gz"] == expected["unl_000.nii.gz"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give the model with -m, or with -d"),
        (("-m", "x", "-d", "1"), "give the model with -m, or with -d"),
        (("-d", "1"), "-d needs the configuration"),
        (("-m", "x", "-f", "one"), "-f one: give numbers, or all"),
        (("-m", "x", "-step_size", "2"), "at most 1"),
        (("-m", "x", "-num_parts", "2", "-part_id", "2"), "give 0 to num_parts - 1"),
        (("-m", "x", "-npp", "0"), "0 for both"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["-i", "a", "-o", "b", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("entry_point", ["predict_entry_point", "predict_entry_point_modelfolder"])
def test_every_flag_of_nnunet_is_there_with_its_default(entry_point, monkeypatch):
    """Of nnU-Net 2.8.1's parsers, which a patched ``parse_args`` gives."""
    stock_parser = []

    def give(parser, *args):
        stock_parser.append(parser)
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", give)
        with pytest.raises(InterruptedError):
            getattr(predict_from_raw_data, entry_point)()
    ours = {flag: action for action in build_parser()._actions for flag in action.option_strings}
    for action in stock_parser[0]._actions:
        for flag in action.option_strings:
            default = action.default
            if flag == "-f":
                default = tuple(str(fold) for fold in default)
            assert ours[flag].default == default, flag
            assert ours[flag].nargs == action.nargs, flag


def test_a_second_stage_without_the_first_ones_predictions_is_refused(model, tmp_path):
    """nnU-Net 2.8.1 writes its records before it says so."""
    folder, images = model("nnUNetTrainerSupervised")
    folder = folder.rename(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    plans = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
    plans["configurations"]["3d_fullres"]["previous_stage"] = "3d_lowres"
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    with pytest.raises(UserError, match="predictions of 3d_lowres: give -prev_stage_predictions"):
        run(folder, images, tmp_path / "out")
    assert not (tmp_path / "out").exists()
