"""ABD: two networks supervise each other, also on images with cells moved from where they differ.

[0] Chi et al., Adaptive bidirectional displacement for semi-supervised medical image segmentation,
    CVPR 2024, arXiv 2405.00378: its variant on cross teaching.

Per step, with f1 on the strong and f2 on the weak view of a patch, X1 and X2 these views and
yk = argmax fk(Xk):
    labeled    L_sup(f1(X1), y) + L_sup(f2(X2), y)
    and        a L(fk(X'), y') for both k and both views X', in which the cell that its network is
               surest of has become the one that the other doubts most, labels alike
    unlabeled  lambda(t) (Dice(f1(X1), y2) + Dice(f2(X2), y1))
    and        the same on both views X', in which the cell that its network doubts most has become
               that of the other's four surest ones which is most like it; labels are predicted anew

Deviates from [0] and its released code: two networks of the plan (there: a U-Net and a Swin-UNet),
of which the one with the strong view predicts, as nnU-Net's own augmentation is one; 3D; both views
change at once (released code: the second copy may read what the first one wrote); likeness by the
cells' mean probabilities (released code: their softmax); at most four cells along an axis, as many
as divide it; several classes, regions, an ignore label, padding and deep supervision.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from nnunet_semisup.losses.consistency import segmentation_loss, weighted_soft_dice
from nnunet_semisup.losses.targets import PseudoLabel, labels_of_target
from nnunet_semisup.mixing.displacement import (
    Cells,
    cells_of,
    displace,
    displace_label,
    doubted_by_alike,
    grid_of,
    surest_by_doubted,
)
from nnunet_semisup.trainers.cps import nnUNetTrainerCPS
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.passes import Pass
from nnunet_semisup.training.ranges import Count, Fraction, Weight

BOTH_WAYS = ((0, 1), (1, 0))
"""A view and the one whose cell it gets."""


class nnUNetTrainerABD(nnUNetTrainerCPS):
    """Train two networks with each other's labels and displaced cells of both views ([0])."""

    labeled_weak: ClassVar[bool] = True

    displaced_weight: Weight = 2.0
    """Weight of labeled images with moved cells (released code)."""
    displaced_probability: Fraction = 0.5
    """Share of labeled images in which a cell is moved (released code)."""
    displaced_until: Fraction = 2 / 3
    """Fraction of training with such images (released code: 20,000 of 30,000 steps)."""
    cells_per_axis: Count = 4
    """Cells along each axis, at most; as many as divide the patch (released code)."""
    sure_cells: Count = 4
    """Surest cells among which the most alike is looked for (released code)."""

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        assert labeled.weak is not None
        views = labeled.image, labeled.weak
        seen = self.student_pass(torch.cat(views), "labeled", apart=True)
        cells = self.cells(seen)
        yield self.supervised_terms(seen, labeled)
        del seen  # Memory for the next pass.
        if self.displaced_weight > 0 and not self.passed(self.displaced_until):
            label = labels_of_target(labeled.target, self.label_manager.ignore_label, self.regions)
            yield from self.displaced_labeled(views, label, cells)

        weight = self.current_unlabeled_weight
        if weight == 0:
            return
        views = unlabeled.strong_view(), unlabeled.image
        seen = self.student_pass(torch.cat(views), "unlabeled", apart=True)
        cells = self.cells(seen)
        yield {"consistency": weight * self.cross_dice(seen, unlabeled.valid), **seen.terms}
        del seen
        grid, valid = self.grid(unlabeled.image), unlabeled.valid
        for own, other in BOTH_WAYS:
            move = doubted_by_alike(cells[own], cells[other], self.sure_cells)
            kept = displace(valid, valid, move, grid)
            image, name = displace(views[own], views[other], move, grid), f"moved_{own + 1}"
            seen = self.student_pass(image, name, kept)
            loss = 0.5 * weight * self.cross_dice(seen, kept)
            yield {f"consistency_{name}": loss, **seen.terms}

    def displaced_labeled(
        self, views: tuple[Tensor, Tensor], label: PseudoLabel, cells: list[Cells]
    ) -> Iterator[Terms]:
        """Yield the losses of both networks on each labeled view with moved cells."""
        grid = self.grid(views[0])
        loss_of = functools.partial(segmentation_loss, regions=self.regions)
        for own, other in BOTH_WAYS:
            move = surest_by_doubted(cells[own], cells[other], self.displaced_probability)
            target = displace_label(label, label, move, grid)
            image, name = displace(views[own], views[other], move, grid), f"displaced_{own + 1}"
            seen = self.student_pass(image, name, target.used)
            losses = [
                self.loss_of_annotations(loss_of, member.logits, target) for member in seen.members
            ]
            loss = 0.5 * self.displaced_weight * torch.stack(losses).sum()
            yield {name: loss, **seen.terms}

    def cross_dice(self, seen: Pass, valid: Tensor) -> Tensor:
        """Return the soft Dice losses of both networks with each other's hard labels, added."""
        losses = [
            weighted_soft_dice(logits, label, self.regions, background=True)
            for logits, label in self.labeled_by_each_other(seen, valid)
        ]
        return torch.stack(losses).sum()

    def grid(self, image: Tensor) -> tuple[int, ...]:
        """Return the number of cells along each axis."""
        return grid_of(image.shape[2:], self.cells_per_axis)

    def cells(self, seen: Pass) -> list[Cells]:
        """Return what each network predicts in the cells of its own view."""
        outputs = [self.full_resolution(member.logits) for member in seen.members]
        return [cells_of(one, self.regions, self.grid(one)) for one in outputs]
