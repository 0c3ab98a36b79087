"""BS-Net: two networks that label for each other, average their weights and hide their origin.

[0] He et al., Bilateral supervision network for semi-supervised medical image segmentation, IEEE
    Transactions on Medical Imaging 43(5), 2024. No code is public; this is a reconstruction from
    the abstract and a summary, and no number of [0] is claimed for it.

Per step, with f1, f2 two networks, p_k their probabilities, D a discriminator of such maps, and G
which passes maps on and reverses their gradient times lambda(t) mu:
    labeled    x_l:  sum over k of L_sup(f_k(x_l), y)
                     BCE(D(sg p_k(x_l)), 1), the mean over k
    unlabeled  x_u:  lambda(t) sum over k of CE(f_k(x_u), argmax p_j(x_u)), j the other one
                     BCE(D(G p_k(x_u)), 0), the mean over k
    after it         f1 <- d f1 + (1 - d) f2  and  f2 <- d f2 + (1 - d) f1, at the same time

From the summary: bilateral averages of the weights in place of a teacher, labels for each other, an
adversarial loss on the maps. Guessed: lambda mu, which rises to 0.001 (as in DAN), d 0.999 (with
less, the networks soon are one), both averages from the same weights, a discriminator of three
strided convolutions on the maps alone that is trained in the same step, lambda as of CPS, which
network predicts (the first). Without an unlabeled weight: labels alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, cast

import torch
from torch import Tensor, nn

from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.losses.consistency import weighted_cross_entropy
from nnunet_semisup.networks.bilateral import average_both_ways
from nnunet_semisup.networks.discriminator import PatchDiscriminator, judged, reversed_gradient
from nnunet_semisup.trainers.cps import nnUNetTrainerCPS
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.passes import Pass
from nnunet_semisup.training.ranges import Between, Weight


class nnUNetTrainerBSNet(nnUNetTrainerCPS):
    """Train two networks towards each other by labels, weights and a discriminator ([0])."""

    bilateral_decay: Annotated[float, Between(0.5, 1)] = 0.999
    """What a network keeps of its weights in a step; the rest is the other one's (a guess)."""
    adversarial_weight: Weight = 0.01
    """Weight of the reversed gradient relative to the cross supervision's (a guess)."""

    def trained_outside(self) -> nn.ModuleDict:
        """Return what the base gives, with the discriminator."""
        outside = super().trained_outside()
        dimensions = len(self.configuration_manager.patch_size)
        outside["discriminator"] = PatchDiscriminator(
            self.planned_network.output_channels, dimensions
        )
        return outside

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        weight = self.current_unlabeled_weight
        seen = self.student_pass(labeled.image, "labeled")
        terms = self.supervised_terms(seen, labeled)
        if weight > 0:
            terms["judged_labeled"] = self.judge(seen)
        yield terms
        del seen, terms  # Memory for the next pass.
        if weight == 0:
            return

        seen = self.student_pass(unlabeled.image, "unlabeled", unlabeled.valid)
        losses = [
            weighted_cross_entropy(logits, label, self.regions)
            for logits, label in self.labeled_by_each_other(seen, unlabeled.valid)
        ]
        named = {f"consistency_{number}": weight * loss for number, loss in enumerate(losses, 1)}
        yield {**named, "judged_unlabeled": self.judge(seen, unlabeled.valid), **seen.terms}

    def judge(self, seen: Pass, valid: Tensor | None = None) -> Tensor:
        """Return the discriminator's loss on the maps of both networks, their mean.

        Args:
            seen: of both networks.
            valid: of unlabeled patches, which teach the networks, too: ``(B, 1, *spatial)`` bool,
                false in padding, which teaches nothing. ``None``: of labeled patches.
        """
        maps = torch.cat([
            probabilities(self.full_resolution(member.logits), self.regions)
            for member in seen.members
        ])  # fmt: skip
        discriminator = cast(PatchDiscriminator, self._outside["discriminator"])
        if valid is None:
            return judged(discriminator(maps.detach()), labeled=True)
        valid = torch.cat([valid] * len(seen.members))
        reach = self.current_unlabeled_weight * self.adversarial_weight
        maps = torch.where(valid, reversed_gradient(maps, reach), maps.detach())
        return judged(discriminator(maps), labeled=False, valid=valid)

    def after_step(self) -> None:
        super().after_step()
        if self.unlabeled_weight > 0:
            first, second = self.training_network.networks()
            average_both_ways(first, second, self.bilateral_decay)
