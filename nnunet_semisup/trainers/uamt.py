"""UA-MT: the student agrees with its moving average where that is sure of itself.

[0] Yu et al., Uncertainty-aware self-ensembling model for semi-supervised 3D left atrium
    segmentation, MICCAI 2019, arXiv 1907.07034.

Per step, with T the teacher, S the student, both with dropout, and n noise on the image:
    labeled    x_l:  L_sup(S(x_l), y)
    doubt      u = H(mean of m passes of T(x_u + n)) / H_max
    unlabeled  x_u:  lambda(t) mean of (S(x_u) - T(x_u + n))^2 where u < 0.75 + 0.25 ramp(t)

Deviates from [0]: the plan's U-Net, which has no dropout, gets it at its two deepest stages with a
smaller probability than V-Net's 0.5; several classes (entropy over ln C) and regions (each channel
over ln 2); lambda rises over 0.4 of the training (the released code's over all of it); the teacher
predicts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.losses.consistency import squared_difference
from nnunet_semisup.losses.schedules import sigmoid_rampup
from nnunet_semisup.losses.targets import normalised_entropy
from nnunet_semisup.networks.dropout import add_dropout, only_dropout
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.ranges import Between, Count, Weight
from nnunet_semisup.training.teacher import TeacherTrainer


class nnUNetTrainerUAMT(TeacherTrainer):
    """Train towards an EMA teacher where its doubt, by dropout, is small ([0], section 2)."""

    unlabeled_weight: Weight = 0.1
    """Greatest weight of the consistency ([0], section 3)."""
    mc_passes: Count = 8
    """Passes of the teacher that its doubt is measured from ([0], section 2.2)."""
    dropout: Annotated[float, Between(0, 0.9)] = 0.2
    """Probability of a channel to be dropped; 0.5 in [0], whose network is wider there."""

    def build_training_network(self, predictor: Any) -> nn.Module:
        """Give the network dropout; a copy of it, the teacher, has it too."""
        add_dropout(predictor, self.dropout)
        return super().build_training_network(predictor)

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        yield self.labeled_terms(labeled)

        weight = self.current_unlabeled_weight
        if weight == 0:
            return
        with only_dropout(self.teacher):
            target = self.teacher_logits(unlabeled.noisy_view())
            mean = self.mean_of_passes(unlabeled)
        limit = 0.75 + 0.25 * sigmoid_rampup(self.progress, 1.0)
        sure = normalised_entropy(mean, self.regions) < limit
        seen = self.student_pass(unlabeled.image, "unlabeled", unlabeled.valid)
        student = self.full_resolution(seen.logits)
        distance = squared_difference(student, target, self.regions, unlabeled.valid & sure)
        valid = unlabeled.valid.float().mean()
        share = (sure & unlabeled.valid).float().mean() / valid.clamp_min(1e-12)
        yield {"consistency": weight * distance, "_sure": share, **seen.terms}

    @torch.no_grad()
    def mean_of_passes(self, unlabeled: Unlabeled) -> Tensor:
        """Return the teacher's mean probabilities ``(B, C, *spatial)`` over noise and dropout."""
        mean: Any = 0.0
        for _ in range(self.mc_passes):
            logits = self.teacher_logits(unlabeled.noisy_view())
            mean = mean + probabilities(logits, self.regions) / self.mc_passes
        return mean
