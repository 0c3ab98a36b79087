"""SemiSup: half of every patch is annotated, the other half labeled by the training itself.

The default of this package, of parts that other methods have:
[0] boxes of labeled and unlabeled patches in one image: BCP, Bai et al., CVPR 2023,
    arXiv 2305.00673; CutMix's sizes of the boxes.
[1] an EMA teacher that predicts and labels: Mean Teacher, Tarvainen and Valpola, NeurIPS 2017.
[2] labels of whole scans, given anew a few times: the rounds of pseudo-labels that nnU-Net's
    maintainers advise, and that won FLARE22, within one training.
[3] strong intensity perturbation of what is unlabeled: UniMatch V2, TPAMI 2025, arXiv 2410.10777.

Per step, with B a random box or all but it, and y^ the last labels of the scans by the teacher:
    first      L_sup(S(x_l), y)
    then       x = strong(x_u) in B, x_l outside;  L(S(x); y^ in B with weight w, y outside)
A step then passes one image for each labeled patch, as nnUNetTrainer does, and costs as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from nnunet_semisup.data.scan_labels import drawn_label
from nnunet_semisup.losses.consistency import segmentation_loss
from nnunet_semisup.losses.partial import leaving_open
from nnunet_semisup.losses.targets import PseudoLabel, repeated
from nnunet_semisup.mixing.exchange import exchange
from nnunet_semisup.mixing.masks import sample_boxes
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.ranges import Fraction, Weight
from nnunet_semisup.training.scan_labels import ScanLabelTrainer


class nnUNetTrainerSemiSup(ScanLabelTrainer):
    """Train on labeled patches mixed with patches of scans that the teacher has labeled."""

    box_volume: ClassVar[tuple[float, float]] = (0.1, 0.5)

    unlabeled_weight: Weight = 0.5
    """Weight of a voxel of an unlabeled patch, one that is annotated having 1 (BCP's alpha)."""
    rampup_length: Fraction = 0.0
    """Fraction of training over which that weight rises."""
    strong_probability: Fraction = 0.8
    """Probability of each kind of intensity perturbation of unlabeled patches."""

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        if unlabeled.label is None:
            yield self.labeled_terms(labeled)
            return

        labeled = self.with_filled_gaps(labeled)
        known = self.labels_of(labeled)
        guessed = drawn_label(unlabeled.label, self.region_values)
        number = max(len(labeled.image), len(unlabeled.image))
        image, known = repeated(labeled.image, number), known.repeated(number)
        other = repeated(unlabeled.strong_view(self.strong_probability), number)
        mask = self.boxes(image)
        weighted = guessed.weighted(self.current_unlabeled_weight).repeated(number)
        mixed, target = exchange(image, known, other, weighted, mask)
        seen = self.student_pass(mixed, "mixed", target.used)
        gaps = None if labeled.gaps is None else labeled.gaps.repeated(number).within(~mask)
        loss_of = leaving_open(self.region_loss, gaps)
        loss = self.loss_of_annotations(loss_of, seen.logits, target)
        yield {"mixed": loss, "_sure": guessed.weight.mean(), **seen.terms}

    def boxes(self, image: Tensor) -> Tensor:
        """Draw where the unlabeled patch is, ``(B, 1, *spatial)`` bool: in a box or around it."""
        batch, spatial = image.shape[0], image.shape[2:]
        inside = sample_boxes(batch, spatial, image.device, volume=self.box_volume)
        around = torch.rand(batch, device=image.device) < 0.5
        return inside ^ around.view(-1, *[1] * (image.ndim - 1))

    def region_loss(self, logits: Tensor, label: PseudoLabel) -> Tensor:
        """Return cross entropy plus soft Dice on the voxels with weight."""
        return segmentation_loss(logits, label, self.regions)
