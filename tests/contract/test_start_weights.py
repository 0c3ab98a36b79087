"""A training that starts from weights of another one (``-pretrained_weights``)."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from nnunetv2.run import run_training
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.nn.parallel import DistributedDataParallel

from nnunet_semisup.architectures.insert import INSERTS, find_insert
from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.members import Members
from nnunet_semisup.registry import METHODS, find_method
from nnunet_semisup.training.start_files import own_names
from nnunet_semisup.training.start_weights import start_from, tensors_of
from tests.contract.conftest import KINDS, each_method, fitting

PSEUDO_LABEL, CPS = find_method("nnUNetTrainerPseudoLabel"), find_method("nnUNetTrainerCPS")
HEAD = ".seg_layers."


def stock_network(trainer, outputs=1, channels=0):
    """nnU-Net's network of the trainer's plans, with more outputs and weights of its own."""
    plan = trainer.plans_manager, trainer.configuration_manager
    inputs = channels or trainer.num_input_channels
    heads = trainer.label_manager.num_segmentation_heads + outputs
    return nnUNetTrainer.build_network_architecture(*plan, inputs, heads, True)


def written(network, trainer, file, **more):
    """A checkpoint of nnU-Net's with these weights."""
    plans = {**trainer.plans_manager.plans, "dataset_name": "Dataset099_Other"}
    arguments = {"plans": plans, "configuration": trainer.configuration_name, "fold": 3}
    content = {"network_weights": network.state_dict(), "trainer_name": "nnUNetTrainer"}
    torch.save({**content, "init_args": arguments, **more}, file)
    return str(file)


def predictor_of(trainer):
    return getattr(trainer.training_network, "predictor", trainer.training_network)


def everything(network):
    """A copy of all that a network holds, by name."""
    named = [*network.named_parameters(), *network.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


def start(trainer, file, continues=False):
    """What nnU-Net's command does with the flag."""
    run_training.maybe_load_checkpoint(trainer, continues, False, file)


@each_method(METHODS)
def test_every_trainer_starts_from_a_checkpoint_of_nnunet_and_from_its_own(
    build, method, tmp_path, capsys
):
    trainer = build(method, "labels3d", start=False)
    trainer.initialize()
    source = stock_network(trainer)
    given = own_names(source.state_dict())
    before, predictor = everything(trainer.training_network), predictor_of(trainer)
    outside = everything(getattr(trainer, "_outside", torch.nn.Module()))
    learning = [id(parameter) for parameter in trainer.network.parameters()]
    file = written(source, trainer, tmp_path / "nnunet.pth")
    start(trainer, file)

    log = capsys.readouterr().out
    assert f"Start weights: {file} (nnUNetTrainer, Dataset099_Other, nnUNetPlans" in log
    assert "fresh: segmentation layers" in log
    own = tensors_of(predictor)
    taken = {name for name, tensor in own.items() if torch.equal(tensor, given.get(name, tensor))}
    assert {n for n in given if HEAD not in n and n in own} <= taken
    of_predictor = {id(parameter) for parameter in predictor.parameters()}
    for name, tensor in trainer.training_network.named_parameters():
        plain = name.partition("encoder.")[2]
        second = ".others." in f".{name}" and f"encoder.{plain}" in given
        if id(tensor) not in of_predictor and not second:
            assert torch.equal(tensor, before[name]), name
        if HEAD in name:
            assert torch.equal(tensor, before[name]), name
    now = everything(getattr(trainer, "_outside", torch.nn.Module()))
    assert all(torch.equal(now[name], outside[name]) for name in outside)
    assert learning == [id(parameter) for parameter in trainer.network.parameters()]
    follows_student(trainer)
    starts_from_its_own(trainer, tmp_path / "own.pth", capsys)


def follows_student(trainer):
    """A teacher has the student's weights, the student's copies included."""
    if hasattr(trainer, "teacher"):
        student, teacher = trainer.followed().state_dict(), trainer.teacher.module.state_dict()
        assert all(torch.equal(teacher[name], student[name]) for name in student)


def starts_from_its_own(trainer, file, capsys):
    """Everything that predicts comes from a checkpoint of the same trainer, but for the heads."""
    trainer.save_checkpoint(str(file))
    stored = own_names(trainer.network_that_predicts.state_dict())
    stored = {name: tensor.clone() for name, tensor in stored.items()}
    with torch.no_grad():
        for parameter in trainer.training_network.parameters():
            parameter.mul_(2)
    start(trainer, str(file))
    for name, tensor in tensors_of(predictor_of(trainer)).items():
        if HEAD not in name and name != "text_features":
            assert torch.equal(tensor, stored[name]), name
    assert f"({type(trainer).__name__}, " in capsys.readouterr().out
    assert trainer.configuration()["start_weights"]["file"] == str(file)


@pytest.mark.parametrize("name", ["nnUNetTrainerCPS", "nnUNetTrainerABD", "nnUNetTrainerBSNet"])
def test_a_second_network_gets_the_encoder_and_differs_in_its_decoder(build, name, tmp_path):
    """With the same weights the two would have nothing to teach each other."""
    trainer = build(find_method(name), "labels3d", start=False)
    trainer.initialize()
    start(trainer, written(stock_network(trainer), trainer, tmp_path / "file.pth"))
    (members,) = (m for m in trainer.training_network.modules() if isinstance(m, Members))
    first, second = (tensors_of(one) for one in (members.predictor, *members.others))
    same = {name for name in first if torch.equal(first[name], second[name])}
    drawn = {n for n in first if n.endswith(("conv.weight", "transpconvs.0.weight"))}
    assert {n for n in drawn if n.startswith("encoder.")} <= same
    assert not {n for n in drawn if n.startswith("decoder.")} & same


def test_a_network_of_another_kind_starts_fresh(build, tmp_path, capsys):
    trainer = build(find_method("nnUNetTrainerMCF"), "labels3d", start=False)
    trainer.initialize()
    (second,) = trainer.training_network.others
    before = everything(second)
    start(trainer, written(stock_network(trainer), trainer, tmp_path / "file.pth"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in everything(second).items())
    assert "the second network is of another kind and starts fresh" in capsys.readouterr().out


@pytest.mark.parametrize("name", INSERTS)
def test_plain_weights_start_a_network_with_a_part_in_it_and_the_other_way_round(
    build, inserted, name, tmp_path, capsys
):
    kind = "labels3d" if 3 in find_insert(name).dims else "labels2d"
    with_part, plain = (
        builder(PSEUDO_LABEL, kind, start=False) for builder in (inserted(name, kind), build)
    )
    plain.initialize()
    plain.save_checkpoint(str(tmp_path / "plain.pth"))
    given = {n: t.clone() for n, t in own_names(plain.student.state_dict()).items()}
    with_part.initialize()
    start(with_part, str(tmp_path / "plain.pth"))
    own = tensors_of(with_part.student)
    kept = {n for n in given if n in own and own[n].shape == given[n].shape and HEAD not in n}
    assert all(torch.equal(own[n], given[n]) for n in kept)
    assert any(n.startswith("decoder.") for n in kept)
    fresh = capsys.readouterr().out.partition("fresh: segmentation layers")[2].split("\n")[0]
    assert bool(set(own) - kept - {n for n in own if HEAD in n}) == (fresh != "")

    with_part.save_checkpoint(str(tmp_path / "part.pth"))
    if name == "uxnet":
        with pytest.raises(UserError, match="nnUNetPlans-uxnet"):
            start_from(plain, str(tmp_path / "part.pth"))
        return
    start(plain, str(tmp_path / "part.pth"))
    now = tensors_of(plain.student)
    assert all(torch.equal(now[n], own[n]) for n in now if n in kept)


@pytest.mark.parametrize("name", ["nnUNetTrainerPseudoLabel", "nnUNetTrainerCPS"])
def test_an_interrupted_run_ends_as_one_that_was_not(build, name, tmp_path):
    method, settings = find_method(name), {"num_epochs": 1, "num_iterations_per_epoch": 3}
    other = build(method, "labels3d", start=False)
    other.initialize()
    weights = written(stock_network(other), other, tmp_path / "file.pth")
    results = []
    for stops in (False, True):
        trainer = build(method, "labels3d", start=False, **settings)
        start(trainer, weights)
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        for step in range(3):
            if stops and step == 1:
                file = f"{trainer.output_folder}/checkpoint_latest.pth"
                trainer.write_checkpoint(file, 0)
                trainer = build(method, "labels3d", start=False, **settings)
                trainer.load_checkpoint(file)
                assert trainer.start_weights["file"] == weights
                trainer.on_train_start()
                trainer.on_train_epoch_start()
            trainer.train_step(next(trainer.dataloader_train))
            trainer.iteration += 1
        results.append(trainer.training_network.state_dict())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_a_compiled_network_on_several_gpus_starts_likewise(build, tmp_path):
    trainer = build(PSEUDO_LABEL, "labels3d", start=False)
    trainer.initialize()
    source = stock_network(trainer)
    compiled = torch.compile(trainer.network, backend="eager")
    wrapped = DistributedDataParallel.__new__(DistributedDataParallel)
    torch.nn.Module.__init__(wrapped)
    wrapped.module = compiled
    trainer.network = trainer._trained = wrapped
    start(trainer, written(source, trainer, tmp_path / "file.pth"))
    own, given = tensors_of(trainer.student), own_names(source.state_dict())
    assert all(torch.equal(own[n], given[n]) for n in own if HEAD not in n)
    follows_student(trainer)


def nnssl(network, **plan):
    """A checkpoint as nnssl writes it, whose network has its weights under nnU-Net's names."""
    return {
        "network_weights": network.state_dict(),
        "trainer_name": "BaseMAETrainer",
        "init_args": {"configuration_name": "onemmiso", "fold": "all"},
        "citations": [{"type": "Pretraining", "name": "MAE", "apa_citations": ["..."]}],
        "nnssl_adaptation_plan": {
            "architecture_plans": {"arch_class_name": "PlainConvUNet", "arch_kwargs": None},
            "pretrain_plan": {
                "configurations": {
                    "onemmiso": {
                        "spacing": [1, 1, 1],
                        "normalization_schemes": ["ZScoreNormalization"],
                        "patch_size": [160, 160, 160],
                    }
                }
            },
            "pretrain_num_input_channels": 1,
            "recommended_downstream_patchsize": [160, 160, 160],
            "key_to_encoder": "encoder.stages",
            "key_to_stem": "encoder.stages.0",
            "keys_to_in_proj": ["encoder.stages.0.0.convs.0.conv"],
            "key_to_lpe": None,
            **plan,
        },
    }


@pytest.mark.parametrize("kind", ["labels3d", "regions3d"])
def test_pretraining_of_one_channel_starts_the_encoder_and_a_decoder_that_fits(
    build, kind, tmp_path, capsys
):
    trainer = build(PSEUDO_LABEL, kind, start=False)
    trainer.initialize()
    source = stock_network(trainer, channels=1)
    torch.save(nnssl(source), tmp_path / "nnssl.pth")
    start(trainer, str(tmp_path / "nnssl.pth"))
    own, given = tensors_of(trainer.student), own_names(source.state_dict())
    first, channels = "encoder.stages.0.0.convs.0.conv.weight", KINDS[kind].channels
    assert own[first].shape[1] == channels
    assert all(torch.equal(own[n], given[n]) for n in own if HEAD not in n and n != first)
    image = torch.randn(1, 1, 8, 8, 8)
    alike = torch.nn.functional.conv3d(image.expand(-1, channels, -1, -1, -1), own[first])
    assert torch.allclose(alike, torch.nn.functional.conv3d(image, given[first]), atol=1e-5)
    log = capsys.readouterr().out
    assert "(nnssl, PlainConvUNet, BaseMAETrainer)" in log
    assert "spacing [1, 1, 1], normalization ['ZScoreNormalization'], patch [160, 160" in log
    assert "the file asks to cite MAE" in log
    assert (f"is repeated for {channels} and divided by {channels}" in log) == (channels > 1)


def test_weights_that_do_not_fit_are_refused_before_anything_is_changed(build, tmp_path):
    trainer = build(PSEUDO_LABEL, "labels3d", start=False)
    trainer.initialize()
    before = everything(trainer.training_network)
    file = written(stock_network(trainer, channels=2), trainer, tmp_path / "file.pth")
    expected = r"conv\.weight is 4x2x3x3x3 there and 4x1x3x3x3 here.*move_plans_between_datasets"
    with pytest.raises(UserError, match=expected):
        start(trainer, file)
    content = nnssl(stock_network(trainer, channels=2))
    torch.save(content, tmp_path / "nnssl.pth")
    with pytest.raises(UserError, match=r"4x2x3x3x3 there.*nnUNetPlannerResEncL"):
        start(trainer, str(tmp_path / "nnssl.pth"))
    torch.save(nnssl(torch.nn.Linear(2, 2)), tmp_path / "nnssl.pth")
    with pytest.raises(UserError, match=r"encoder\.\S+ is not there.*and \d+ more"):
        start(trainer, str(tmp_path / "nnssl.pth"))
    with pytest.raises(UserError, match="--c continues one"):
        start(trainer, file, continues=True)
    now = everything(trainer.training_network)
    assert all(torch.equal(now[name], before[name]) for name in before)


def test_texts_of_other_classes_and_another_reading_are_not_taken(build, tmp_path, capsys):
    method = find_method("nnUNetTrainerMeanTeacherText")
    trainer = build(method, "labels3d", start=False)
    trainer.initialize()
    trainer.save_checkpoint(str(tmp_path / "file.pth"))
    content = torch.load(tmp_path / "file.pth", weights_only=False)
    weights = content["network_weights"]
    weights["text_features"] = torch.zeros_like(weights["text_features"])
    weights["interaction.reading_number"] += 1
    torch.save(content, tmp_path / "file.pth")
    before = everything(trainer.student)
    start(trainer, str(tmp_path / "file.pth"))
    assert all(torch.equal(tensor, before[n]) for n, tensor in everything(trainer.student).items())
    assert "fresh: segmentation layers, interaction, text_features" in capsys.readouterr().out


@pytest.mark.parametrize(("fold", "warned"), [(0, False), ("all", True)])
def test_cases_that_the_weights_have_seen_are_told(build, datasets, fold, warned, tmp_path, capsys):
    kind = fitting(PSEUDO_LABEL, "labels3d")
    splits = datasets(kind) / "splits_final.json"
    there = splits.exists()
    trainer = build(PSEUDO_LABEL, kind, start=False)
    trainer.initialize()
    if not there:
        trainer.do_split()
    plans, name = trainer.plans_manager.plans, trainer.configuration_name
    arguments = {"plans": plans, "configuration": name, "fold": fold}
    file = written(stock_network(trainer), trainer, tmp_path / "file.pth", init_args=arguments)
    start(trainer, file)
    val = json.loads(splits.read_text(encoding="utf-8"))[0]["val"]
    expected = f"trained on 1 of the cases that fold 0 validates on ({val[0]})"
    assert (expected in capsys.readouterr().out) == warned


def test_the_command_ends_with_code_two_and_other_trainers_are_left_to_nnunet(
    build, monkeypatch, tmp_path, capsys
):
    trainer = build(PSEUDO_LABEL, "labels3d", start=False)
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train"])
    with pytest.raises(SystemExit) as end:
        start(trainer, str(tmp_path / "none.pth"))
    assert end.value.code == 2
    assert "error: -pretrained_weights" in capsys.readouterr().err

    class Stock:
        was_initialized = True

    other = Stock()
    trainer.initialize()
    other.network = stock_network(trainer, outputs=0)
    source = stock_network(trainer, outputs=0)
    start(other, written(source, trainer, tmp_path / "file.pth"))
    theirs, own = own_names(source.state_dict()), own_names(other.network.state_dict())
    assert all(torch.equal(own[n], theirs[n]) for n in own if HEAD not in n)
    start(trainer, None)
    assert trainer.start_weights is None
