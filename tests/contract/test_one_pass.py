"""Labeled and unlabeled patches in one pass of the network: the same step as by two."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.errors import UserError
from nnunet_semisup.registry import METHODS, find_method
from nnunet_semisup.training.agreement import AgreementTrainer
from nnunet_semisup.training.text_guidance import TextGuidance
from tests.contract.conftest import each_method, trainer_class

CLASSES = [(method, trainer_class(method)) for method in METHODS]
AGREEING = [
    method
    for method, cls in CLASSES
    if issubclass(cls, AgreementTrainer) and not issubclass(cls, TextGuidance)
]


def step(trainer):
    """Return terms and gradients of a step in the second epoch, and the passes it makes."""
    trainer.current_epoch = 1
    passes = []
    network = trainer.training_network
    network.register_forward_hook(lambda _, given, __: passes.append(len(given[0])))
    labeled, unlabeled = trainer.to_device(next(trainer.dataloader_train))
    torch.manual_seed(0)
    terms = {}
    for group in trainer.compute_losses(labeled, unlabeled):
        torch.stack(list(group.values())).sum().backward()
        terms |= {name: float(term.detach()) for name, term in group.items()}
    gradients = {name: p.grad for name, p in network.named_parameters()}
    return terms, gradients, passes


@each_method(AGREEING)
@pytest.mark.parametrize("unlabeled", [2, 3])
def test_one_pass_is_as_good_as_two(build, method, unlabeled):
    settings = {"unlabeled_batch_size": unlabeled}
    terms, gradients, passes = step(build(method, "labels3d", **settings))
    same, as_well, at_once = step(build(method, "labels3d", one_pass=True, **settings))
    assert (passes, at_once) == ([2, unlabeled], [2 + unlabeled])
    assert same == pytest.approx(terms, rel=1e-4)
    for name, gradient in gradients.items():
        torch.testing.assert_close(as_well[name], gradient, rtol=1e-2, atol=1e-4, msg=name)


def test_texts_are_aligned_stream_by_stream(build):
    with pytest.raises(UserError, match="one_pass=True"):
        build(find_method("nnUNetTrainerDTCText"), "labels3d", one_pass=True)
