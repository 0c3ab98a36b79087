"""MC-Net and MC-Net+: decoders that differ in up-sampling agree with each other's sharp outputs.

[0] Wu et al., Semi-supervised left atrium segmentation with mutual consistency training, MICCAI
    2021, arXiv 2103.02911: two decoders.
[1] Wu et al., Mutual consistency learning for semi-supervised medical image segmentation, Medical
    Image Analysis 2022, arXiv 2109.09960 (MC-Net+): three decoders.

Per step, with f_i the decoders on one encoder and s(p) = p^(1/T) / sum of p^(1/T):
    labeled    x_l:  sum over i of L_sup(f_i(x_l), y)
    all        x:    lambda(t) sum over i != j of the mean of (f_i(x) - s(f_j(x)))^2

Deviates from [0] and [1]: the plan's U-Net; nnU-Net's loss with deep supervision in place of half
the Dice; several classes are sharpened together, so that the target is a distribution (released
code: channel by channel), regions one by one; the ramp is a fraction of training. The gradient
flows into both sides, as in the released code. The first decoder, the plan's, predicts.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from torch import Tensor, nn

from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.losses.consistency import mutual_distance
from nnunet_semisup.losses.targets import sharpen
from nnunet_semisup.networks.decoders import Upsampling, decoder_like
from nnunet_semisup.networks.planned import PlannedNetwork
from nnunet_semisup.training.agreement import AgreementTrainer
from nnunet_semisup.training.passes import Pass
from nnunet_semisup.training.ranges import Between, Weight


class nnUNetTrainerMCNet(AgreementTrainer):
    """Train two decoders on one encoder with mutual consistency ([0], eq. 3)."""

    members_share_encoder: ClassVar[bool] = True
    further_decoders: ClassVar[tuple[Upsampling, ...]] = ("linear",)

    unlabeled_weight: Weight = 1.0
    """Greatest weight of the consistency (released code, left atrium and pancreas)."""
    temperature: Annotated[float, Between(0.01, 1)] = 0.1
    """Temperature T of the sharpening ([0], section 3)."""

    @classmethod
    def further_members(cls, predictor: Any, plan: PlannedNetwork) -> list[nn.Module]:
        """Build decoders that differ from the plan's in their up-sampling."""
        return [decoder_like(predictor.decoder, kind) for kind in cls.further_decoders]

    def disagreement(self, seen: Pass, valid: Tensor | None = None) -> Tensor:
        """Return the distance of the decoders from each other's sharpened outputs, summed."""
        logits = [self.full_resolution(member.logits) for member in seen.members]
        probs = [probabilities(one, self.regions) for one in logits]
        sharp = [sharpen(one, self.temperature, self.regions) for one in probs]
        return mutual_distance(probs, sharp, valid)


class nnUNetTrainerMCNetPlus(nnUNetTrainerMCNet):
    """Train three decoders on one encoder ([1], section 3.2)."""

    further_decoders: ClassVar[tuple[Upsampling, ...]] = ("linear", "nearest")
