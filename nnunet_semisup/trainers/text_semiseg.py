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
import torch.distributed
from torch import Tensor

from nnunet_semisup.losses.consistency import (
    PseudoLabel,
    pseudo_label,
    weighted_cross_entropy,
    weighted_soft_dice,
)
from nnunet_semisup.mixing.cognitive import exchange_foreground, foreground, labels_of_target
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.deferred import HostBool
from nnunet_semisup.training.hyperparameters import require_range
from nnunet_semisup.training.text_guidance import TextGuidance


class nnUNetTrainerTextSemiSeg(TextGuidance):
    """Two decoders supervise each other, guided by text and by mixed images ([0], eq. 9)."""

    use_teacher: ClassVar[bool] = False
    two_decoders: ClassVar[bool] = True

    unlabeled_weight: float = 0.1
    """Greatest weight of the cross supervision, lambda in [0], section 2.4; 0: labels alone."""
    rampup_length: float = 1.0
    """lambda rises over the whole training ([0], section 2.4)."""
    mix_weight: float = 1.0
    """Weight of the two mixed images' losses ([0], eq. 8 and 9); 0 leaves that pass out."""
    mix_start: float = 0.2
    """Fraction of training before the mixed pass begins (released code: 6,000 of 30,000 steps)."""

    @classmethod
    def check_hyperparameters(cls, values: dict[str, Any]) -> None:
        super().check_hyperparameters(values)
        require_range(values, "mix_weight", 0.0, float("inf"))
        require_range(values, "mix_start", 0.0, 1.0)

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        text = self.step_text()
        logits, visual = self.network(labeled.image, text, (0, 1))
        supervised = torch.stack([self.supervised_loss(one, labeled.target) for one in logits])
        second_better = self.second_is_better(supervised.detach())
        yield {
            "supervised_1": supervised[0],
            "supervised_2": supervised[1],
            "_second_better": second_better.float(),
            **self.alignment_terms("labeled", logits, visual, text),
        }
        del logits, visual  # Memory for the next pass.
        if self.unlabeled_weight == 0:
            return

        mixing = self.mix_weight > 0 and self.progress >= self.mix_start
        decided = HostBool(second_better) if mixing else None
        logits, visual = self.network(unlabeled.image, text, (0, 1))
        outputs = [self.full_resolution(one) for one in logits]
        pseudo = [pseudo_label(one, self.regions, None, unlabeled.valid) for one in outputs]
        weight = self.current_unlabeled_weight
        yield {
            "consistency_1": weight * self.segmentation_loss(outputs[0], pseudo[1]),
            "consistency_2": weight * self.segmentation_loss(outputs[1], pseudo[0]),
            **self.alignment_terms("unlabeled", logits, visual, text, unlabeled.valid),
        }
        del logits, visual, outputs
        if decided is None:
            return

        better = int(decided.read())
        image, label, valid = self.mixed(labeled, unlabeled, pseudo[better])
        logits, visual = self.network(image, text, (1 - better,))
        yield {
            "mixed": self.mix_weight * self.mixed_loss(self.full_resolution(logits[0]), label),
            **self.alignment_terms("mixed", logits, visual, text, valid),
        }

    def second_is_better(self, losses: Tensor) -> Tensor:
        """Whether the second decoder has the lower labeled loss, over all processes; 0-d bool.

        Args:
            losses: ``(2,)`` of the two decoders, without gradient; a tie goes to the first.
        """
        if self.is_ddp:
            losses = losses.clone()
            torch.distributed.all_reduce(losses)
        return losses[1] < losses[0]

    def mixed(
        self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabel
    ) -> tuple[Tensor, PseudoLabel, Tensor]:
        """Labeled and unlabeled patches with exchanged foregrounds ([0], eq. 5 and 6).

        Returns:
            The ``(2 B, C, *spatial)`` images, those with labeled foreground first, their labels,
            and ``(2 B, 1, *spatial)`` bool, false in padding of the unlabeled patches.
        """
        pairs = min(labeled.image.shape[0], unlabeled.image.shape[0])
        label = labels_of_target(labeled.target, self.label_manager.ignore_label, self.regions)
        own = PseudoLabel(*(part[:pairs] for part in label))
        theirs = PseudoLabel(*(part[:pairs] for part in pseudo))
        image, mixed = exchange_foreground(
            labeled.image[:pairs], own, unlabeled.image[:pairs], theirs
        )
        kept = foreground(own) | unlabeled.valid[:pairs]
        return image, mixed, torch.cat([kept, torch.ones_like(kept)])

    def mixed_loss(self, logits: Tensor, label: PseudoLabel) -> Tensor:
        """The losses of the two kinds of mixed images, added ([0], eq. 8).

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
        """Cross entropy plus soft Dice at full resolution, on the voxels with weight."""
        return weighted_cross_entropy(logits, label, self.regions) + weighted_soft_dice(
            logits, label, self.regions
        )

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Sets it on both decoders."""
        super().set_deep_supervision_enabled(enabled)
        self.training_network.second_decoder.deep_supervision = enabled
