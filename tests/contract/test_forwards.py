"""Passes of a step through encoders and decoders, counted; the registry's and the cost's floor."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest

from nnunet_semisup.training.batches import unwrap
from tests.contract.conftest import SEMI_SUPERVISED, each_method, trainer_class
from tests.helpers import trial_settings

PARTS = ("encoder", "decoder")
NOW_AND_THEN = {"match_every"}
"""Settings of a trial by which each step does what a training's do now and then."""


def count(counted, part, module, given, output):
    """Add the patches of a pass, by part and by whether it is to be propagated back."""
    counted[part, output.requires_grad] += output.shape[0]


def networks_of(trainer):
    """Return every network of a trainer, the teacher's included."""
    found = [unwrap(trainer.network), unwrap(trainer.training_network)]
    teacher = getattr(trainer, "teacher", None)
    found += [teacher.module] if teacher is not None else []
    snapshots = getattr(trainer, "snapshots", None)
    return found + ([snapshots.module] if snapshots is not None else [])


def first_stages(trainer):
    """Yield the first stage of each encoder and decoder, once, with the name of its part."""
    seen = set()
    for network in networks_of(trainer):
        for name, module in network.named_modules():
            part = name.rpartition(".")[2]
            owner = name.split(".")[-2:-1]
            if owner == ["others"] or part in PARTS:
                stages = getattr(module, "stages", None)
                if stages is not None and id(stages[0]) not in seen:
                    seen.add(id(stages[0]))
                    yield "encoder" if part == "encoder" else "decoder", stages[0]


@each_method(SEMI_SUPERVISED)
def test_passes_of_a_step_are_those_of_the_registry(build, method):
    settings = trial_settings(method.trainer)
    usual = {name: getattr(trainer_class(method), name) for name in NOW_AND_THEN & settings.keys()}
    trainer = build(method, "labels2d", num_epochs=10, **usual)
    trainer.current_epoch = 6
    counted = Counter()
    for part, stage in first_stages(trainer):
        stage.register_forward_hook(partial(count, counted, part))
    for _ in range(trainer.period):
        batch = next(trainer.dataloader_train)
        trainer.iteration += 1
        trainer.train_step(batch)
    labeled = batch["data"].shape[0] * trainer.period
    assert batch["unlabeled"].shape[0] == batch["data"].shape[0]
    encoder = method.forwards
    decoder = method.decoder_forwards or encoder
    for part, (back, alone) in zip(PARTS, (encoder, decoder), strict=True):
        found = counted[part, True] / labeled, counted[part, False] / labeled
        assert found == pytest.approx((back, alone)), part
