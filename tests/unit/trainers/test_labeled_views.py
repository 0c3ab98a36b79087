"""Weak views and maps of labeled patches, from a case on disk to a method's loss."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.trainers import (
    SemiSupervisedTrainer,
    nnUNetTrainerBCP,
    nnUNetTrainerMeanTeacher,
    nnUNetTrainerTextSemiSeg,
)
from nnunet_semisup.training.batches import Labeled, Unlabeled

MIXING = {
    nnUNetTrainerBCP: {"mix_start": 0, "largest_component": False},
    nnUNetTrainerTextSemiSeg: {"text_model": "none", "mix_start": 0},
}


def foreground_map(segmentation, regions):
    """Map of one channel: 1 in any class."""
    return (segmentation > 0).float()


class MapTrainer(SemiSupervisedTrainer):
    """Learns the map of labeled patches by the last class's logit, from both views."""

    labeled_weak = True
    labeled_maps = {"foreground": foreground_map}  # noqa: RUF012

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled):
        self.seen = labeled
        yield self.labeled_terms(labeled)
        logits = self.full_resolution(self.student_pass(labeled.weak, "weak").logits)
        wanted = labeled.maps["foreground"]
        yield {"map": (logits[:, -1:].sigmoid() - wanted).square().mean()}


class BothMaps(MapTrainer):
    """Adds a map of its own to those of its base."""

    labeled_maps = {**MapTrainer.labeled_maps, "double": lambda s, _: torch.cat([s, s])}  # noqa: RUF012


def next_batch(trainer):
    """Return the first batch of the trainer's own loader, in this process."""
    trainer.dataloader_train, _ = trainer.get_dataloaders()
    return next(trainer.dataloader_train)


def test_a_map_made_in_the_loader_reaches_the_loss(build):
    trainer = build(MapTrainer)
    batch = next_batch(trainer)
    trainer.train_step(batch)
    seen = trainer.seen
    assert seen.weak.shape == seen.image.shape == (2, 1, 16, 16)
    assert not torch.equal(seen.weak, seen.image)
    assert torch.equal(seen.maps["foreground"], (seen.target[0] > 0).float())
    assert seen.maps["foreground"].any()
    assert "map" in trainer.monitor._sums
    # The label is the image of this case but for noise, so the weak view shows it as it is.
    assert float(seen.weak[seen.target[0] == 2].mean()) == pytest.approx(2, abs=0.2)


def test_a_subclass_adds_a_map(build):
    _, maps = (lambda labeled: (labeled.weak, labeled.maps))(
        build(BothMaps).to_device(next_batch(build(BothMaps)))[0]
    )
    assert {name: tuple(one.shape) for name, one in maps.items()} == {
        "foreground": (2, 1, 16, 16),
        "double": (2, 2, 16, 16),
    }


def test_a_method_that_does_not_ask_gets_none(build):
    labeled, _ = (trainer := build(nnUNetTrainerMeanTeacher)).to_device(next_batch(trainer))
    assert labeled.weak is None
    assert labeled.maps == {}


@pytest.mark.parametrize("cls", MIXING, ids=lambda cls: cls.__name__)
def test_labeled_patches_are_the_same_with_and_without_a_weak_view(build, cls, monkeypatch):
    """As every other trainer's, whatever is asked beside them."""
    with_view = next_batch(build(cls, **MIXING[cls]))
    other = next_batch(build(nnUNetTrainerMeanTeacher))
    monkeypatch.setattr(cls, "labeled_weak", False)
    without = next_batch(build(cls, **MIXING[cls]))
    for batch in (without, other):
        assert torch.equal(batch["data"], with_view["data"])
        assert torch.equal(batch["unlabeled"], with_view["unlabeled"])


@pytest.mark.parametrize("unlabeled_patches", [1, 2, 3])
@pytest.mark.parametrize("cls", MIXING, ids=lambda cls: cls.__name__)
def test_mixed_images_are_made_of_weak_views_of_both_kinds(build, cls, unlabeled_patches):
    """A part with other noise or contrast than its surroundings would show where it was pasted."""
    trainer = build(cls, unlabeled_batch_size=unlabeled_patches, **MIXING[cls])
    trainer.current_epoch = 6
    labeled, unlabeled = trainer.to_device(next_batch(trainer))
    passes = []
    run = trainer.student_pass

    def watched(image, name, valid=None, **how):
        passes.append((name, image))
        return run(image, name, valid, **how)

    trainer.student_pass = watched
    list(trainer.compute_losses(labeled, unlabeled))
    mixed = [image for name, image in passes if name.startswith("mixed")]
    assert sum(len(image) for image in mixed) == 2 * max(2, unlabeled_patches)
    found = set(torch.cat(mixed).flatten().tolist())
    parts = [set(patch.flatten().tolist()) for patch in (*labeled.weak, *unlabeled.image)]
    assert found <= set().union(*parts)
    assert all(found & part for part in parts), "every patch takes part"
    assert not found & (set(labeled.image.flatten().tolist()) - set().union(*parts))
