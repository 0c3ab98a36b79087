"""What every semi-supervised trainer must do on every kind of data set, seen at one short training.

Each method trains a few steps on each kind of data set that it is for; the tests look at its steps,
gradients, checkpoint and prediction (:class:`tests.contract.course.Course`).
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch.nn.parallel import DistributedDataParallel

from nnunet_semisup.registry import METHODS
from nnunet_semisup.training.batches import Unlabeled
from nnunet_semisup.training.checkpoint import KEY
from tests.contract.conftest import SEMI_SUPERVISED, WITH_TEACHER, each_method, each_pair, product
from tests.contract.course import SETTINGS, in_the_same_folder, networks_of, start_in_second_epoch

courses = each_pair(product(SEMI_SUPERVISED))


def is_named(name, *starts):
    """Tell whether a term has one of the protocol's names."""
    return any(name == start or name.startswith(f"{start}_") for start in starts)


@courses
def test_steps_are_finite_and_move_student_and_teacher(course, method, kind):
    made = course(method, kind)
    assert all(abs(loss) < 100 for loss in made.losses)
    networks = networks_of(made.trainer)
    assert len(networks) == 1 + method.has_teacher
    for before, after in zip(made.started, made.ended, strict=True):
        assert all(torch.isfinite(value).all() for value in after.values())
        moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
        assert any("encoder" in name for name in moved)
        assert any("decoder" in name for name in moved)


@courses
def test_checkpoint_round_trip_continues_bit_equal(course, build, method, kind):
    made = course(method, kind)
    resumed = build(method, kind, start=False, **SETTINGS)
    in_the_same_folder(resumed, made.trainer)
    resumed.load_checkpoint(made.file)
    assert (resumed.current_epoch, resumed.iteration) == (1, 2)
    resumed.on_train_start()
    resumed.on_train_epoch_start()
    assert torch.equal(torch.random.get_rng_state(), made.random_state)
    again = next(resumed.dataloader_train)
    for stream in ("data", "unlabeled", "unlabeled_valid"):
        assert torch.equal(again[stream], made.batches[2][stream])
    assert float(resumed.train_step(again)["loss"]) == made.losses[2]
    for network, state in zip(networks_of(resumed), made.ended, strict=True):
        for name, value in network.state_dict().items():
            assert torch.equal(value, state[name]), name


@courses
def test_stock_prediction_loads_the_checkpoint(course, method, kind):
    """It holds the network that predicts, without what only training needs."""
    trainer = course(method, kind).trainer
    folder = Path(trainer.output_folder)
    trainer.save_checkpoint(str(folder / "checkpoint_final.pth"))
    checkpoint = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    assert checkpoint["trainer_name"] == method.predicts_as
    assert checkpoint[KEY]["trainer"] == method.trainer
    plain = type(trainer).build_network_architecture(
        trainer.plans_manager,
        trainer.configuration_manager,
        trainer.num_input_channels,
        trainer.label_manager.num_segmentation_heads,
        False,
    )
    names = set(plain.state_dict())
    assert set(checkpoint["network_weights"]) == names == set(trainer.student.state_dict())
    assert trainer.student in set(trainer.training_network.modules())

    predictor = nnUNetPredictor(
        use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu")
    )
    predictor.initialize_from_trained_model_folder(str(folder.parent), (0,), "checkpoint_final.pth")
    image = next(trainer.dataloader_val)["data"][:1]
    predictor.network.load_state_dict(predictor.list_of_parameters[0])
    predictor.network.eval()
    with torch.no_grad(), trainer.predicting(deep_supervision=False):
        trainer.network.eval()
        assert torch.equal(predictor.network(image), trainer.network(image))
    trainer.network.train()


@courses
def test_unlabeled_terms_alone_give_a_network_a_gradient(course, method, kind):
    made = course(method, kind)
    trainer = made.trainer
    trainer.optimizer.zero_grad(set_to_none=True)
    groups = trainer.compute_losses(*trainer.to_device(made.batches[0]))
    for number, terms in enumerate(groups):
        if number == 0 and method.labels_alone:
            continue
        losses = [t for n, t in terms.items() if n[0] != "_" and not is_named(n, "supervised")]
        sum(losses).backward()
    trainer.after_backward()
    shares = []
    for network in (trainer.student, *getattr(trainer.training_network, "others", ())):
        if not hasattr(network, "encoder"):
            continue  # A further decoder on the student's.
        gradients = [p.grad for p in network.encoder.parameters()]
        assert all(torch.isfinite(g).all() for g in gradients if g is not None)
        shares.append(sum(g is not None and bool(g.any()) for g in gradients) / len(gradients))
    assert max(shares) > 0.5, "of two networks, a step may teach one"


@each_pair(product(WITH_TEACHER))
def test_the_teacher_has_no_gradient_and_is_not_optimised(course, method, kind):
    trainer = course(method, kind).trainer
    optimised = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in trainer.training_network.parameters()} <= optimised
    for parameter in trainer.teacher.parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad
        assert id(parameter) not in optimised


@courses
def test_first_terms_are_of_labels_alone_where_the_registry_says_so(course, method, kind):
    """Terms have the names of the protocol in CONTRIBUTING."""
    made = course(method, kind)
    trainer = made.trainer
    first, *others = trainer.compute_losses(*trainer.to_device(made.batches[0]))
    trainer.after_backward()
    assert any(is_named(name, "supervised") for name in first) == method.labels_alone
    assert not any(is_named(name, "consistency") for name in first)
    for terms in others:
        assert not any(is_named(name, "supervised", "agreement_labeled") for name in terms)
    if method.labels_alone:
        assert any(is_named(name, "consistency") for terms in others for name in terms)


@courses
def test_padding_of_unlabeled_patches_counts_nowhere(course, method, kind):
    made = course(method, kind)
    trainer = made.trainer
    labeled, unlabeled = trainer.to_device(made.batches[0])
    nothing = Unlabeled(unlabeled.image, torch.zeros_like(unlabeled.valid))

    def terms_of():
        torch.manual_seed(0)
        groups = list(trainer.compute_losses(labeled, nothing))
        trainer.after_backward()
        return {name: float(term.detach()) for group in groups for name, term in group.items()}

    terms = terms_of()
    consistency = [value for name, value in terms.items() if is_named(name, "consistency")]
    assert all(value == pytest.approx(0.0, abs=1e-7) for value in consistency)
    if not consistency:  # Unlabeled voxels are part of mixed images.
        weight, trainer.unlabeled_weight = trainer.unlabeled_weight, 0.0
        without = terms_of()
        trainer.unlabeled_weight = weight
        assert terms == pytest.approx(without, abs=1e-6)


@each_pair(product(SEMI_SUPERVISED, ("labels3d", "regions3d")))
@pytest.mark.parametrize("value", [0, 1])
def test_finite_without_and_with_only_foreground(course, method, kind, value):
    trainer = course(method, kind).trainer
    batch = next(trainer.dataloader_train)
    targets = batch["target"] if isinstance(batch["target"], list) else [batch["target"]]
    for target in targets:
        target.fill_(value)
    assert torch.isfinite(trainer.train_step(batch)["loss"])
    assert all(torch.isfinite(p).all() for p in trainer.training_network.parameters())


def two_steps(trainer):
    """Return the losses of two steps of the second epoch."""
    start_in_second_epoch(trainer)
    losses = []
    for _ in range(2):
        losses.append(float(trainer.train_step(next(trainer.dataloader_train))["loss"]))
        trainer.iteration += 1
    return losses


@each_method(METHODS)
def test_one_process_of_a_distributed_training_trains_alike(
    course, build, method, monkeypatch, request
):
    """Distributed training accepts the passes of a step, and they all reach the gradient."""
    if method.uses_unlabeled:
        expected = course(method, "labels2d").losses[:2]
    else:
        expected = two_steps(build(method, "labels2d", start=False, **SETTINGS))
    module = import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    monkeypatch.setattr(
        module, "DDP", lambda network, device_ids: DistributedDataParallel(network)
    )  # nnU-Net's own is for GPUs.
    request.getfixturevalue("one_process")
    trainer = build(method, "labels2d", start=False, **SETTINGS)
    trainer.device, trainer.grad_scaler = torch.device("cpu"), None
    losses = two_steps(trainer)
    assert trainer.is_ddp
    assert isinstance(trainer.network, DistributedDataParallel)
    assert losses == pytest.approx(expected, rel=1e-4), "the second shows what the first learned"


def test_a_method_of_two_dimensions_is_trained_in_two(build):
    method = replace(SEMI_SUPERVISED[0], dims=(2,))
    assert [kind for _, kind in product([method])] == ["labels2d", "regions2d", "ignore2d"]
    assert [kind for _, kind in product([method], ("labels3d", "regions3d"))] == [
        "labels2d",
        "regions2d",
    ]
    classes = replace(method, labels=("classes",))
    assert [kind for _, kind in product([classes])] == ["labels2d"]
    assert len(build(method, "labels3d", start=False).configuration_manager.patch_size) == 2
