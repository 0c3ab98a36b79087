"""Text-SemiSeg: class texts at the bottleneck of a network with two decoders, and mixing.

[0] Text-SemiSeg, MICCAI 2025, arXiv 2507.12382.

Per step, with f1, f2 the two decoders after the text interaction (TMR) and t the class texts:
    labeled    x_l:  L_seg(f1(x_l, t), y) + L_seg(f2(x_l, t), y)
    unlabeled  x_u:  lambda (L_seg(f1(x_u, t), y2) + L_seg(f2(x_u, t), y1)),  yk = argmax fk(x_u, t)
    mixed      x_m:  L_seg(f_worse(x_m, t), y_m), added over both kinds of x_m: foregrounds of x_l
                     and x_u exchanged by y and by y_better; better and worse by the labeled loss
    every pass:      alignment of the predicted classes' features with t (CSA)

Deviates from [0]: the plan's U-Net instead of V-Net, 2D as well as 3D; several classes and regions;
schedules in fractions of training; nnU-Net's loss with deep supervision on labeled patches; the
alignment is normalised and weighted (losses/text_alignment.py). Equation 2 is read as networks/
multiplanar.py says. Deviates from the released code: one interaction for both decoders, no largest
component, the mixed pass aligns the worse decoder only, and its losses are added, not joined.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nnunet_semisup.losses.consistency import segmentation_loss
from nnunet_semisup.losses.targets import PseudoLabel, labels_of_target, pseudo_label, repeated
from nnunet_semisup.mixing.exchange import exchange_foreground
from nnunet_semisup.mixing.masks import foreground
from nnunet_semisup.networks.decoders import decoder_like
from nnunet_semisup.networks.planned import PlannedNetwork
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.deferred import DeferredBool
from nnunet_semisup.training.ranges import Fraction, Weight
from nnunet_semisup.training.text_guidance import TextGuidance


class nnUNetTrainerTextSemiSeg(TextGuidance):
    """Train two decoders with each other's labels, guided by text and mixed images ([0], eq. 9)."""

    labeled_weak: ClassVar[bool] = True
    members_share_encoder: ClassVar[bool] = True

    unlabeled_weight: Weight = 0.1
    """Greatest weight of the cross supervision, lambda in [0], section 2.4; 0: labels alone."""
    rampup_length: Fraction = 1.0
    """lambda rises over the whole training ([0], section 2.4)."""
    mix_weight: Weight = 1.0
    """Weight of the two mixed images' losses ([0], eq. 8 and 9); 0 leaves that pass out."""
    mix_start: Fraction = 0.2
    """Fraction of training before the mixed pass begins (released code: 6,000 of 30,000 steps)."""

    @classmethod
    def further_members(cls, predictor: Any, plan: PlannedNetwork) -> list[nn.Module]:
        """Build a second decoder, which differs in its up-sampling."""
        return [decoder_like(predictor.decoder, "linear")]

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        seen = self.student_pass(labeled.image, "labeled")
        supervised = torch.stack(
            [self.supervised_loss(one.logits, labeled.target) for one in seen.parts]
        )
        second_better = self.second_is_better(supervised.detach())
        yield {
            "supervised_1": supervised[0],
            "supervised_2": supervised[1],
            "_second_better": second_better.float(),
            **seen.terms,
        }
        del seen  # Memory for the next pass.
        if self.unlabeled_weight == 0:
            return

        mixing = self.mix_weight > 0 and self.passed(self.mix_start)
        decided = DeferredBool(second_better) if mixing else None
        seen = self.student_pass(unlabeled.image, "unlabeled", unlabeled.valid)
        outputs = [self.full_resolution(one.logits) for one in seen.parts]
        pseudo = [pseudo_label(one, self.regions, None, unlabeled.valid) for one in outputs]
        weight = self.current_unlabeled_weight
        yield {
            "consistency_1": weight * self.segmentation_loss(outputs[0], pseudo[1]),
            "consistency_2": weight * self.segmentation_loss(outputs[1], pseudo[0]),
            **seen.terms,
        }
        del seen, outputs
        if decided is None:
            return

        better = int(decided.read())
        image, label, valid = self.mixed(labeled, unlabeled, pseudo[better])
        seen = self.student_pass(image, "mixed", valid, which=(1 - better,))
        loss = self.mixed_loss(self.full_resolution(seen.logits), label)
        yield {"mixed": self.mix_weight * loss, **seen.terms}

    def second_is_better(self, losses: Tensor) -> Tensor:
        """Tell whether the second decoder has the lower labeled loss, over all processes; 0-d bool.

        Args:
            losses: ``(2,)`` of the two decoders, without gradient; a tie goes to the first.
        """
        return self.ranks.second_is_lower(losses)

    def mixed(
        self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabel
    ) -> tuple[Tensor, PseudoLabel, Tensor]:
        """Exchange the foregrounds of labeled and unlabeled patches ([0], eq. 5 and 6).

        Returns:
            The ``(2 B, C, *spatial)`` images, those with labeled foreground first, their labels,
            and ``(2 B, 1, *spatial)`` bool, false in padding of the unlabeled patches.
        """
        assert labeled.weak is not None
        number = max(len(labeled.weak), len(unlabeled.image))
        label = labels_of_target(labeled.target, self.label_manager.ignore_label, self.regions)
        own, theirs = label.repeated(number), pseudo.repeated(number)
        image, mixed = exchange_foreground(
            repeated(labeled.weak, number), own, repeated(unlabeled.image, number), theirs
        )
        kept = foreground(own) | repeated(unlabeled.valid, number)
        return image, mixed, torch.cat([kept, torch.ones_like(kept)])

    def mixed_loss(self, logits: Tensor, label: PseudoLabel) -> Tensor:
        """Return the losses of the two kinds of mixed images, added ([0], eq. 8).

        Args:
            logits: ``(2 B, C, *spatial)``, images with labeled foreground first.
            label: of the same images.
        """
        kinds = zip(logits.chunk(2), label.target.chunk(2), label.weight.chunk(2), strict=True)
        return torch.stack(
            [
                self.segmentation_loss(one, PseudoLabel(target, weight))
                for one, target, weight in kinds
            ]
        ).sum()

    def segmentation_loss(self, logits: Tensor, label: PseudoLabel) -> Tensor:
        """Return cross entropy plus soft Dice at full resolution, on the voxels with weight."""
        return segmentation_loss(logits, label, self.regions)
