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
from typing import Any

from torch import Tensor

from nnunet_semisup.losses.consistency import (
    PseudoLabel,
    pseudo_label,
    weighted_cross_entropy,
    weighted_soft_dice,
)
from nnunet_semisup.mixing.cutmix import paste, sample_boxes
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.hyperparameters import require_range
from nnunet_semisup.training.loop import SemiSupervisedTrainer


class nnUNetTrainerPseudoLabel(SemiSupervisedTrainer):
    """Confident hard labels of the teacher supervise the student on the strong view."""

    confidence_threshold: float | None = 0.95
    """Least confidence of a pseudo-label (UniMatch V2 and VQ-Seg's code); ``None``: all (paper)."""
    cutmix_probability: float = 1.0
    """Share of strong views with a box of another unlabeled patch pasted in."""
    strong_probability: float = 0.8
    """Probability of each kind of intensity perturbation."""
    dice_weight: float = 1.0
    """Weight of the soft Dice beside the cross entropy on pseudo-labels; the papers have 0."""

    @classmethod
    def check_hyperparameters(cls, values: dict[str, Any]) -> None:
        super().check_hyperparameters(values)
        if values["confidence_threshold"] is not None:
            require_range(values, "confidence_threshold", 0.0, 1.0)
        require_range(values, "cutmix_probability", 0.0, 1.0)
        require_range(values, "strong_probability", 0.0, 1.0)
        require_range(values, "dice_weight", 0.0, float("inf"))

    def on_train_start(self) -> None:
        """As the base; says where a setting leaves CutMix without effect."""
        super().on_train_start()
        if self.unlabeled_patches == 1 and self.cutmix_probability > 0:
            self.print_to_log_file(
                "CutMix has no effect: unlabeled_batch_size=1 leaves no other patch to paste from"
            )

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        yield {"supervised": self.supervised_loss(self.network(labeled.image), labeled.target)}

        weight = self.current_unlabeled_weight
        if weight > 0:
            image, label = self.strong_pair(unlabeled, self.teacher_label(unlabeled))
            logits = self.full_resolution(self.network(image))
            yield {
                "consistency": weight * self.pseudo_label_loss(logits, label),
                "_confident": label.weight.mean(),
            }

    @property
    def unlabeled_patches(self) -> int:
        """As the base, but two at least by default: CutMix needs another patch to paste from."""
        least = 2 if self.cutmix_probability > 0 else 1
        return self.unlabeled_batch_size or max(least, self.batch_size)

    def teacher_label(self, unlabeled: Unlabeled) -> PseudoLabel:
        """The teacher's labels of the weak view."""
        logits = self.teacher_logits(unlabeled.image)
        return pseudo_label(logits, self.regions, self.confidence_threshold, unlabeled.valid)

    def strong_pair(self, unlabeled: Unlabeled, label: PseudoLabel) -> tuple[Tensor, PseudoLabel]:
        """The strong view ``(B, C, *spatial)`` and its pseudo-label, mixed with the same boxes."""
        image = unlabeled.strong_view(self.strong_probability)
        boxes = sample_boxes(image.shape[0], image.shape[2:], image.device, self.cutmix_probability)
        return paste(image, boxes), PseudoLabel(*(paste(part, boxes) for part in label))

    def pseudo_label_loss(self, logits: Tensor, label: PseudoLabel) -> Tensor:
        """Cross entropy plus soft Dice on the voxels with weight."""
        loss = weighted_cross_entropy(logits, label, self.regions)
        if self.dice_weight > 0:
            loss = loss + self.dice_weight * weighted_soft_dice(logits, label, self.regions)
        return loss
