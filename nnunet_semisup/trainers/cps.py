"""CPS: two networks that start differently supervise each other.

[0] Chen et al., Semi-supervised semantic segmentation with cross pseudo supervision, CVPR 2021,
    arXiv 2106.01226.

Per step, with f1, f2 the networks and yk = argmax fk(x_u):
    labeled    x_l:  L_sup(f1(x_l), y) + L_sup(f2(x_l), y)
    unlabeled  x_u:  lambda(t) (CE(f1(x_u), y2) + CE(f2(x_u), y1))

Deviates from [0] as its medical ports do: labels cross on unlabeled patches alone (in [0] on
labeled ones, too); lambda rises to 0.1 (1.5 in [0], constant), here over 0.4 of the training
(ports: all of it); no CutMix.
The first network predicts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from nnunet_semisup.losses.consistency import weighted_cross_entropy
from nnunet_semisup.losses.targets import PseudoLabel, pseudo_label
from nnunet_semisup.networks.planned import PlannedNetwork
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.passes import Pass
from nnunet_semisup.training.ranges import Weight
from nnunet_semisup.training.semi_supervised import SemiSupervisedTrainer


class nnUNetTrainerCPS(SemiSupervisedTrainer):
    """Train two networks of the plan with each other's hard labels ([0], eq. 3)."""

    unlabeled_weight: Weight = 0.1
    """Greatest weight of the cross supervision (the value of SSL4MIS's port)."""

    @classmethod
    def further_members(cls, predictor: Any, plan: PlannedNetwork) -> list[nn.Module]:
        """Build a second network, of other initial weights."""
        return [cls.build_network_architecture(*plan.arguments)]

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        yield self.labeled_terms(labeled)

        weight = self.current_unlabeled_weight
        if weight == 0:
            return
        seen = self.student_pass(unlabeled.image, "unlabeled", unlabeled.valid)
        losses = [
            weighted_cross_entropy(logits, label, self.regions)
            for logits, label in self.labeled_by_each_other(seen, unlabeled.valid)
        ]
        named = {f"consistency_{number}": weight * loss for number, loss in enumerate(losses, 1)}
        yield {**named, **seen.terms}

    def labeled_by_each_other(self, seen: Pass, valid: Tensor) -> list[tuple[Tensor, PseudoLabel]]:
        """Return the logits of each network with the other one's hard labels.

        Args:
            seen: of both networks.
            valid: ``(B, 1, *spatial)`` bool, false in padding.
        """
        outputs = [self.full_resolution(member.logits) for member in seen.members]
        labels = [pseudo_label(logits, self.regions, None, valid) for logits in outputs]
        return list(zip(outputs, reversed(labels), strict=True))
