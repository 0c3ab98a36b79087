"""FixMatch: the student's own confident labels of the weak view supervise it on the strong one.

[0] Sohn et al., FixMatch: simplifying semi-supervised learning with consistency and confidence,
    NeurIPS 2020, arXiv 2001.07685.

Per step, with S the student and p = S(weak(x_u)), without gradient, as it predicts:
    labeled    x_l:  L_sup(S(x_l), y)
    unlabeled  x_u:  lambda mean over all voxels of [max p >= tau] CE(S(strong(x_u)), argmax p)

Deviates from [0]: a label for each voxel, several classes and regions, padding never counts; the
weak view is the spatial part of nnU-Net's augmentation, the strong one perturbs intensities. As in
[0], lambda is constant, for the threshold alone keeps the term small at first.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nnunet_semisup.losses.consistency import weighted_cross_entropy
from nnunet_semisup.losses.targets import pseudo_label
from nnunet_semisup.networks.evaluating import evaluating
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.ranges import Fraction, Weight
from nnunet_semisup.training.semi_supervised import SemiSupervisedTrainer


class nnUNetTrainerFixMatch(SemiSupervisedTrainer):
    """Confident hard labels of the student itself, without a teacher ([0], eq. 4)."""

    unlabeled_weight: Weight = 1.0
    """Weight of the unlabeled term, lambda in [0]."""
    rampup_length: Fraction = 0.0
    """Fraction of training over which that weight rises; none in [0]."""
    confidence_threshold: Fraction | None = 0.95
    """Least confidence of a label, tau in [0]; ``None``: all are used."""
    strong_probability: Fraction = 0.8
    """Probability of each kind of intensity perturbation."""

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        yield self.labeled_terms(labeled)

        weight = self.current_unlabeled_weight
        if weight == 0:
            return
        valid = unlabeled.valid
        weak = self.weak_logits(unlabeled.image)
        label = pseudo_label(weak, self.regions, self.confidence_threshold, valid)
        image = unlabeled.strong_view(self.strong_probability)
        seen = self.student_pass(image, "unlabeled", valid)
        logits = self.full_resolution(seen.logits)
        loss = weighted_cross_entropy(logits, label, self.regions, among=valid)
        yield {"consistency": weight * loss, "_confident": label.weight.mean(), **seen.terms}

    @torch.no_grad()
    def weak_logits(self, image: Tensor) -> Tensor:
        """Return ``(B, C, *spatial)`` logits of the student as it predicts, without gradient."""
        with self.predicting(deep_supervision=False), evaluating(self.network):
            logits = self.network(image)
        # Autocast of older torch keeps weights that it casts here, cut off from their gradient, for
        # the next pass (pytorch issue 158232).
        torch.clear_autocast_cache()
        return self.full_resolution(logits)
