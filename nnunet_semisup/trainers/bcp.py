"""BCP: a box of each kind of patch is pasted into the other, labels alike.

[0] Bai et al., Bidirectional copy-paste for semi-supervised medical image segmentation, CVPR 2023,
    arXiv 2305.00673.

Per step, with B a box, T the teacher and y_u the largest components of argmax T(x_u):
    first      x = x_l outside of B, another x_l in B:  L(S(x); their labels)
    then       x_in  = x_l outside of B, x_u in B:  L(S(x_in); y_l) + u L(S(x_in); y_u)
               x_out = x_u outside of B, x_l in B:  u L(S(x_out); y_u) + L(S(x_out); y_l)
    with L half the sum of Dice and cross entropy, of the voxels of one origin where it names one

Deviates from [0]: both stages in one run, so that the teacher goes on as the average of the first
one's weights (released code: both networks start from its best ones on the test cases); every
labeled patch is used in both directions, with another partner; deep supervision; the box may lie at
every position; several classes, regions, an ignore label and padding count as their labels say;
components are kept as they are unless ``largest_component`` is set, since a lesion may have
several; the teacher predicts. As in [0], no intensity augmentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor

from nnunet_semisup.losses.consistency import weighted_cross_entropy, weighted_soft_dice
from nnunet_semisup.losses.deep_supervision import deep_supervised
from nnunet_semisup.losses.partial import Gaps, leaving_open
from nnunet_semisup.losses.targets import (
    PseudoLabel,
    largest_component,
    pseudo_label,
    repeated,
)
from nnunet_semisup.mixing.exchange import exchange, exchange_with_previous
from nnunet_semisup.mixing.masks import sample_box
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.ranges import Fraction, Weight
from nnunet_semisup.training.teacher import TeacherTrainer


class nnUNetTrainerBCP(TeacherTrainer):
    """Paste in both directions between labeled and unlabeled patches ([0], eq. 3 to 8)."""

    labeled_weak: ClassVar[bool] = True

    unlabeled_weight: Weight = 0.5
    """Weight of pseudo-labeled voxels, alpha in [0], eq. 6."""
    rampup_length: Fraction = 0.0
    """Fraction of training over which that weight rises; none in [0]."""
    mix_start: Fraction = 0.12
    """Fraction of training with labeled patches alone (released code: 2,000 of 17,000 steps)."""
    box_side: Fraction = 2 / 3
    """Length of the box along each axis, relative to the patch ([0], section 4)."""
    largest_component: bool = False
    """Pseudo-label the largest part of a class in a patch only ([0]: organs); the host waits."""
    labeled_weight: Weight = 0.0
    """Weight of nnU-Net's own term of labeled patches, augmented as always; not in [0]."""

    def on_train_start(self) -> None:
        """Say where the first phase has no other patch to paste from, too."""
        super().on_train_start()
        if self.batch_size == 1 and self.mix_start > 0:
            self.print_to_log_file(
                "BCP's first phase trains on patches as they are: one labeled patch a process "
                "leaves no other to paste from"
            )

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        if self.labeled_weight > 0:
            terms = self.labeled_terms(labeled)
            yield {**terms, "supervised": self.labeled_weight * terms["supervised"]}

        image = labeled.weak
        assert image is not None
        labeled = self.with_filled_gaps(labeled)
        label, gaps = self.labels_of(labeled), labeled.gaps
        box = sample_box(image.shape[2:], image.device, self.box_side)
        if not self.passed(self.mix_start):
            mixed, target = exchange_with_previous(image, label, box)
            seen = self.student_pass(mixed, "mixed", target.used)
            parts = (gaps.within(~box), gaps.rolled().within(box)) if gaps is not None else ()
            loss_of = leaving_open(self.region_loss, *parts)
            loss = self.loss_of_annotations(loss_of, seen.logits, target)
            yield {"mixed": loss, **seen.terms}
            return

        pseudo, other = self.teacher_label(unlabeled), unlabeled.image
        number = max(len(image), len(other))
        image, label = repeated(image, number), label.repeated(number)
        gaps = None if gaps is None else gaps.repeated(number)
        other, pseudo = repeated(other, number), pseudo.repeated(number)
        mixed, target = exchange(image, label, other, pseudo, box)
        yield self.mixed_terms("mixed_in", mixed, target, ~box, gaps)

        mixed, target = exchange(other.roll(1, 0), pseudo.rolled(), image, label, box)
        yield self.mixed_terms("mixed_out", mixed, target, box, gaps)

    def teacher_label(self, unlabeled: Unlabeled) -> PseudoLabel:
        """Return the teacher's labels, with ``largest_component`` of each class that part alone."""
        logits = self.teacher_logits(unlabeled.image)
        label = pseudo_label(logits, self.regions, None, unlabeled.valid)
        if not self.largest_component:
            return label
        target = largest_component(label.target, logits.shape[1], self.regions)
        return PseudoLabel(target, label.weight)

    def mixed_terms(
        self, name: str, image: Tensor, label: PseudoLabel, annotated: Tensor, gaps: Gaps | None
    ) -> Terms:
        """Return the loss of a mixed image, each origin's voxels by themselves ([0], eq. 6).

        Args:
            name: of the term.
            image: ``(B, C, *spatial)``.
            label: of the image.
            annotated: ``(1, 1, *spatial)`` bool, true in voxels of the labeled patch.
            gaps: of the labeled patches.
        """
        seen = self.student_pass(image, name, label.used)
        known, guessed = label.within(annotated), label.within(~annotated)
        loss_of = leaving_open(self.region_loss, gaps)
        loss = self.loss_of_annotations(loss_of, seen.logits, known)
        weights = self.deep_supervision_weights
        pseudo = deep_supervised(self.region_loss, seen.logits, guessed, weights)
        return {name: loss + self.current_unlabeled_weight * pseudo, **seen.terms}

    def region_loss(self, logits: Tensor, label: PseudoLabel) -> Tensor:
        """Return half the sum of Dice and cross entropy on the voxels with weight."""
        dice = weighted_soft_dice(logits, label, self.regions, per_image=True, background=True)
        return 0.5 * (dice + weighted_cross_entropy(logits, label, self.regions))
