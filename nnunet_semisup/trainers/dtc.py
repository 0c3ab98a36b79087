"""DTC: a distance map and a segmentation, predicted side by side, agree with each other.

[0] Luo et al., Semi-supervised medical image segmentation through dual-task consistency, AAAI 2021,
    arXiv 2009.04448.

Per step, with S the network, D = tanh its second head and s(d) = sigmoid(-k d):
    labeled    x_l:  L_sup(S(x_l), y) + beta mean of (D(x_l) - signed distance of y)^2
    all        x:    lambda(t) mean of (s(D(x)) - S(x))^2, without the background

Deviates from [0]: a distance map for each class or region; patches without a class are far from it
everywhere (+1; released code: 0, the value of a boundary) and patches full of it deep inside (-1;
released code: not a number); nnU-Net's loss with deep supervision in place of the Dice; the
distance at full resolution only, made in the workers; the ramp is a fraction of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from torch import Tensor, nn

from nnunet_semisup.data.labeled_views import MakeMap
from nnunet_semisup.data.signed_distance import signed_distance
from nnunet_semisup.losses.activation import foreground_probabilities
from nnunet_semisup.losses.consistency import mean_square
from nnunet_semisup.losses.targets import distance_to_mask, labels_of_target
from nnunet_semisup.networks.decode import feature_width
from nnunet_semisup.networks.heads import WithHeads
from nnunet_semisup.training.agreement import AgreementTrainer
from nnunet_semisup.training.batches import Labeled, Terms
from nnunet_semisup.training.passes import Pass
from nnunet_semisup.training.ranges import AtLeast, Weight


class nnUNetTrainerDTC(AgreementTrainer):
    """Train segmentation and signed distance to agree with each other ([0])."""

    labeled_maps: ClassVar[Mapping[str, MakeMap]] = {"distance": signed_distance}

    unlabeled_weight: Weight = 1.0
    """Greatest weight of the consistency (released code)."""
    distance_weight: Weight = 0.3
    """Weight of the distance on labeled patches, beta in the released code."""
    steepness: Annotated[float, AtLeast(1)] = 1500.0
    """Steepness k of the step that makes a mask of a distance ([0])."""

    def build_training_network(self, predictor: Any) -> nn.Module:
        """Add a head for the distances."""
        plan = self.planned_network
        classes = plan.output_channels if self.regions else plan.output_channels - 1
        convolution = predictor.encoder.conv_op(feature_width(predictor.decoder), classes, 1)
        return WithHeads(predictor, {"distance": nn.Sequential(convolution, nn.Tanh())})

    def supervised_terms(self, seen: Pass, labeled: Labeled) -> Terms:
        """Return nnU-Net's loss and that of the distances, where the label is not to be ignored."""
        label = labels_of_target(labeled.target, self.label_manager.ignore_label, self.regions)
        distance, target = seen.parts["distance"], labeled.maps["distance"]
        loss = mean_square(distance, target, label.weight > 0)
        terms = super().supervised_terms(seen, labeled)
        return {**terms, "supervised_distance": self.distance_weight * loss}

    def disagreement(self, seen: Pass, valid: Tensor | None = None) -> Tensor:
        """Return the mean squared difference of segmentation and distances turned into a mask."""
        probs = foreground_probabilities(self.full_resolution(seen.logits), self.regions)
        return mean_square(distance_to_mask(seen.parts["distance"], self.steepness), probs, valid)
