"""Pseudo-labels from an EMA teacher on a strongly perturbed, CutMixed view.

[0] Yang et al., UniMatch V2, TPAMI 2025, arXiv 2410.10777: the scheme that VQ-Seg builds on,
    here without its feature perturbation. It is the control for VQ-Seg: the same views, teacher
    and loss, no quantizer.

Deviates from [0]: one strong view instead of two, soft Dice beside the cross entropy, a mean over
the confident voxels ([0]: over all that are not ignored), a sigmoid ramp of the weight, nnU-Net's
spatial augmentation as the weak view.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from nnunet_semisup.losses.consistency import weighted_cross_entropy, weighted_soft_dice
from nnunet_semisup.losses.targets import PseudoLabel, pseudo_label
from nnunet_semisup.mixing.exchange import exchange_with_previous
from nnunet_semisup.mixing.masks import sample_boxes
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.ranges import Fraction, Weight
from nnunet_semisup.training.teacher import TeacherTrainer


class nnUNetTrainerPseudoLabel(TeacherTrainer):
    """Train the student's strong view with the teacher's confident hard labels."""

    cutmix_volume: ClassVar[tuple[float, float]] = (0.1, 0.5)

    confidence_threshold: Fraction | None = 0.95
    """Least confidence of a pseudo-label (UniMatch V2 and VQ-Seg's code); ``None``: all (paper)."""
    cutmix_probability: Fraction = 1.0
    """Share of strong views with a box of another unlabeled patch pasted in."""
    strong_probability: Fraction = 0.8
    """Probability of each kind of intensity perturbation."""
    dice_weight: Weight = 1.0
    """Weight of the soft Dice beside the cross entropy on pseudo-labels; the papers have 0."""

    def on_train_start(self) -> None:
        """Say where a setting leaves CutMix without effect, too."""
        super().on_train_start()
        if self.unlabeled_patches == 1 and self.cutmix_probability > 0:
            self.print_to_log_file(
                "CutMix has no effect: unlabeled_batch_size=1 leaves no other patch to paste from"
            )

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        yield self.labeled_terms(labeled)

        weight = self.current_unlabeled_weight
        if weight > 0:
            image, label, valid = self.strong_pair(unlabeled, self.teacher_label(unlabeled))
            seen = self.student_pass(image, "unlabeled", valid)
            loss = self.pseudo_label_loss(self.full_resolution(seen.logits), label)
            yield {
                "consistency": weight * loss,
                "_confident": label.weight.mean(),
                **seen.terms,
            }

    @property
    def unlabeled_patches(self) -> int:
        """Unlabeled patches a step, by default two at least: CutMix pastes from another patch."""
        least = 2 if self.cutmix_probability > 0 else 1
        return self.unlabeled_batch_size or max(least, self.batch_size)

    def teacher_label(self, unlabeled: Unlabeled) -> PseudoLabel:
        """Return the teacher's labels of the weak view."""
        logits = self.teacher_logits(unlabeled.image)
        return pseudo_label(logits, self.regions, self.confidence_threshold, unlabeled.valid)

    def strong_pair(
        self, unlabeled: Unlabeled, label: PseudoLabel
    ) -> tuple[Tensor, PseudoLabel, Tensor]:
        """Mix the strong view, its pseudo-label and where it is no padding with the same boxes.

        Returns:
            ``(B, C, *spatial)``, the label, and ``(B, 1, *spatial)`` bool.
        """
        image = unlabeled.strong_view(self.strong_probability)
        boxes = self.boxes(image)
        valid = torch.where(boxes, unlabeled.valid.roll(1, 0), unlabeled.valid)
        return *exchange_with_previous(image, label, boxes), valid

    def boxes(self, image: Tensor) -> Tensor:
        """Draw where each image is pasted into from another, ``(B, 1, *spatial)`` bool."""
        batch, spatial = image.shape[0], image.shape[2:]
        probability, volume = self.cutmix_probability, self.cutmix_volume
        return sample_boxes(batch, spatial, image.device, probability, volume)

    def pseudo_label_loss(
        self, logits: Tensor, label: PseudoLabel, among: Tensor | None = None
    ) -> Tensor:
        """Return cross entropy plus soft Dice on the voxels with weight.

        Args:
            logits: ``(B, C, *spatial)``.
            label: of the images.
            among: as of :func:`~nnunet_semisup.losses.consistency.weighted_cross_entropy`.
        """
        loss = weighted_cross_entropy(logits, label, self.regions, among)
        if self.dice_weight > 0:
            loss = loss + self.dice_weight * weighted_soft_dice(logits, label, self.regions)
        return loss
