"""MCF: two networks of different kind correct each other where they disagree.

[0] Wang et al., MCF: mutual correction framework for semi-supervised medical image segmentation,
    CVPR 2023.

Per step, with f1, f2 the networks, D the labeled voxels where their answers differ, and the better
one that with the lower Dice loss on the labeled patches:
    labeled    x_l:  sum over k of L_sup(fk(x_l), y) + 0.5 mean over D of (fk(x_l) - y)^2
    unlabeled  x_u:  lambda(t) mean of (f_worse(x_u) - s(f_better(x_u)))^2,
                     s(p) = p^(1/T) / sum of p^(1/T)

Deviates from [0]: the plan's U-Net and one of the other kind, residual or plain, instead of V-Net
and 3D ResNet; one optimizer, each network's gradient clipped by itself; nnU-Net's loss with deep
supervision; several classes, and regions that each have their own D; the ramp is a fraction of
training; without an unlabeled weight, labels alone. The first network, the plan's, predicts (in
[0], the mean of both).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from nnunet_semisup.losses.activation import hard_labels, probabilities
from nnunet_semisup.losses.consistency import mean_square, weighted_soft_dice
from nnunet_semisup.losses.targets import PseudoLabel, labels_of_target, one_hot, sharpen
from nnunet_semisup.networks.partners import other_network, partner_of
from nnunet_semisup.networks.planned import PlannedNetwork
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.deferred import DeferredBool
from nnunet_semisup.training.inputs import Inputs
from nnunet_semisup.training.ranges import Between, Weight
from nnunet_semisup.training.semi_supervised import SemiSupervisedTrainer


class nnUNetTrainerMCF(SemiSupervisedTrainer):
    """A pair of unlike networks; at each step the better one teaches the other ([0])."""

    unlabeled_weight: Weight = 0.1
    """Greatest weight of what the worse network learns from the better one; 0: labels alone."""
    rectification_weight: Weight = 0.5
    """Weight of the labeled voxels where the two disagree ([0])."""
    temperature: Annotated[float, Between(0.01, 1)] = 0.1
    """Temperature T of the sharpening ([0])."""

    def check_inputs(self, inputs: Inputs) -> None:
        """Check as the base; also refuse plans whose network has no known partner."""
        super().check_inputs(inputs)
        if not inputs.trained:
            planned = inputs.configuration_manager
            other_network(planned.network_arch_class_name, planned.network_arch_init_kwargs)

    @classmethod
    def further_members(cls, predictor: Any, plan: PlannedNetwork) -> list[nn.Module]:
        """Build a network of the other kind."""
        return [cls.extend_network(partner_of(plan, residual=True), plan)]

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        seen = self.student_pass(labeled.image, "labeled")
        terms = self.supervised_terms(seen, labeled)
        weight = self.current_unlabeled_weight
        if weight == 0:
            yield terms
            return
        label = labels_of_target(labeled.target, self.label_manager.ignore_label, self.regions)
        outputs = [self.full_resolution(one.logits) for one in seen.members]
        second_better = self.second_is_better(outputs, label)
        decided = DeferredBool(second_better)
        terms |= self.rectified_terms(outputs, label)
        yield {**terms, "_second_better": second_better.float()}
        del seen, terms, outputs  # Memory for the next passes.

        better = int(decided.read())
        with torch.no_grad():
            taught = self.student_pass(unlabeled.image, "target", unlabeled.valid, which=(better,))
        probs = probabilities(self.full_resolution(taught.logits), self.regions)
        target = sharpen(probs, self.temperature, self.regions)
        seen = self.student_pass(unlabeled.image, "unlabeled", unlabeled.valid, which=(1 - better,))
        probs = probabilities(self.full_resolution(seen.logits), self.regions)
        distance = mean_square(probs, target, unlabeled.valid)
        yield {"consistency": weight * distance, **seen.terms}

    def rectified_terms(self, outputs: Sequence[Tensor], label: PseudoLabel) -> Terms:
        """Return each network's distance from the labels where the two answer differently.

        Args:
            outputs: of both, ``(B, C, *spatial)`` logits of labeled patches.
            label: of the patches.
        """
        probs = [probabilities(one, self.regions) for one in outputs]
        first, second = (hard_labels(one, self.regions) for one in probs)
        differ = (first != second) & (label.weight > 0)
        target = one_hot(label.target, probs[0].shape[1], self.regions)
        weight = self.rectification_weight
        return {
            f"rectified_{number}": weight * mean_square(one, target, differ)
            for number, one in enumerate(probs, 1)
        }

    @torch.no_grad()
    def second_is_better(self, outputs: Sequence[Tensor], label: PseudoLabel) -> Tensor:
        """Tell whether the second network has the lower Dice loss on labels; 0-d bool.

        Args:
            outputs: as of :meth:`rectified_terms`.
            label: of the patches.
        """
        losses = [weighted_soft_dice(one, label, self.regions) for one in outputs]
        return self.ranks.second_is_lower(torch.stack(losses))
