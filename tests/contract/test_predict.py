"""``nnUNetv2_semisup_predict`` on every method: nnU-Net's files, and the weights that it names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_raw

from nnunet_semisup.cli.predict import build_parser, predict
from nnunet_semisup.errors import UserError
from nnunet_semisup.inference.predictor import Choice, SemisupPredictor
from nnunet_semisup.inference.stored import Stored
from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.registry import METHODS, find_method
from tests.contract.conftest import each_method, each_once, each_pair

WITH_MEMBERS = {
    "nnUNetTrainerCPS": 2,
    "nnUNetTrainerABD": 2,
    "nnUNetTrainerMCF": 2,
    "nnUNetTrainerMCNet": 2,
    "nnUNetTrainerMCNetPlus": 3,
    "nnUNetTrainerTextSemiSeg": 2,
}
SEQUENTIAL = ("-device", "cpu", "-npp", "0", "-nps", "0", "--disable_progress_bar")


@pytest.fixture
def model(course, datasets, tmp_path):
    """Model folder, images and course of a method on a kind, with the course's checkpoint."""

    def get(trainer, kind="labels3d"):
        method = find_method(trainer) if isinstance(trainer, str) else trainer
        made = course(method, kind)
        folder = tmp_path / "model"
        (folder / "fold_0").mkdir(parents=True)
        base = Path(made.trainer.output_folder_base)
        for name in ("plans.json", "dataset.json"):
            shutil.copy(base / name, folder)
        shutil.copy(made.file, folder / "fold_0" / "checkpoint_final.pth")
        images = tmp_path / "images"
        images.mkdir()
        raw = Path(str(nnUNet_raw), datasets(kind).name, "imagesUn")
        for file in sorted(raw.glob("unl_00[01]_*")):
            shutil.copy(file, images)
        return folder, images, made

    return get


def run(folder, images, output, *more):
    """Run the command in this process, without processes of nnU-Net's."""
    own = ("-i", str(images), "-o", str(output), "-m", str(folder), "-f", "0", *SEQUENTIAL)
    predict(build_parser().parse_args([*own, *more]))
    return output


def stock(folder, images, output, save_probabilities=False, mirroring=True):
    """Predict as nnUNetv2_predict."""
    predictor = nnUNetPredictor(
        use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
    output.mkdir()
    predictor.predict_from_files_sequential(
        str(images), str(output), save_probabilities=save_probabilities
    )
    return output


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@each_pair(each_once(METHODS, ("labels3d", "regions3d", "labels2d")))
def test_files_are_those_of_nnunet(model, tmp_path, method, kind):
    """Every byte, its records included, from checkpoints of every method."""
    folder, images, _ = model(method, kind)
    output = tmp_path / "out"
    expected = contents(stock(folder, images, output, save_probabilities=True))
    shutil.rmtree(output)
    assert contents(run(folder, images, output, "--save_probabilities")) == expected
    assert {name.split(".")[-1] for name in expected} >= {"npz", "pkl", "json"}


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


IMAGE = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))


@each_method([m for m in METHODS if m.has_teacher])
def test_student_and_teacher_are_those_of_the_training(build, model, method):
    folder, _, _ = model(method)
    trainer = build(method, "labels3d", start=False, num_iterations_per_epoch=3)
    trainer.load_checkpoint(str(folder / "fold_0" / "checkpoint_final.pth"))
    teacher = getattr(trainer.teacher.module, "predictor", trainer.teacher.module)
    networks = {"student": trainer.student, "teacher": teacher}
    found = {}
    for kind, network in networks.items():
        found[kind] = logits_of(folder, Choice(weights=kind), IMAGE)
        trainer.set_deep_supervision_enabled(False)
        network.eval()
        with torch.inference_mode():
            assert torch.equal(found[kind], network(IMAGE)), kind
    assert not torch.equal(found["student"], found["teacher"])
    assert torch.equal(found["teacher"], logits_of(folder, Choice(), IMAGE))


@pytest.mark.parametrize("trainer", WITH_MEMBERS)
def test_members_are_those_of_the_training(build, model, trainer):
    folder, _, _ = model(trainer)
    stored = Stored.read(folder / "fold_0" / "checkpoint_final.pth")
    assert stored.number_of_members == WITH_MEMBERS[trainer]
    training = build(find_method(trainer), "labels3d", start=False, num_iterations_per_epoch=3)
    training.load_checkpoint(str(folder / "fold_0" / "checkpoint_final.pth"))
    network = training.training_network
    training.set_deep_supervision_enabled(False)
    network.eval()
    with torch.inference_mode():
        inner = getattr(network, "inner", network)
        expected = [part.logits for part in inner(IMAGE).parts]
    assert len(expected) == WITH_MEMBERS[trainer]
    for number, logits in enumerate(expected):
        assert torch.equal(logits_of(folder, Choice(member=number), IMAGE), logits), number
    mean = torch.stack([probabilities(logits, False) for logits in expected]).mean(0)
    found = probabilities(logits_of(folder, Choice(member="mean"), IMAGE), False)
    torch.testing.assert_close(found, mean)


@each_method([m for m in METHODS if m.trainer not in WITH_MEMBERS])
def test_every_method_with_several_members_is_known(model, method):
    folder, _, _ = model(method)
    assert Stored.read(folder / "fold_0" / "checkpoint_final.pth").number_of_members == 1


def test_the_command_predicts_by_what_was_chosen(model, tmp_path):
    """A checkpoint whose student is another network: the files are those of that network."""
    folder, images, _ = model("nnUNetTrainerMeanTeacher")
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
    folder, images, _ = model(trainer)
    with pytest.raises(UserError, match=said):
        run(folder, images, tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


def test_all_faults_are_told_at_once(model, tmp_path):
    folder, images, _ = model("nnUNetTrainerCPS", "regions3d")
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
    folder, images, _ = model("nnUNetTrainerCPS")
    with pytest.raises(UserError, match="-o is the folder of the images"):
        run(folder, images, images)
    with pytest.raises(UserError, match=r"has no images CASE_0000\.nii\.gz"):
        run(folder, folder, tmp_path / "out")
    with pytest.raises(UserError, match="there is no model folder"):
        run(folder / "x", images, tmp_path / "out")
    assert not (tmp_path / "out").exists()
