"""SS-Net: predictions stay where noise pushes them most, and features stay near their class.

[0] Wu et al., Exploring smoothness and class-separation for semi-supervised medical image
    segmentation, MICCAI 2022, arXiv 2203.01324.

Per step, with S the network, z = h(g(its last features)), r the noise of a given size that changes
S(x_u) most, and m_c the 32 surest features g(.) of class c that labeled patches had last:
    labeled    x_l:  L_sup(S(x_l), y) + lambda(t) a mean over classes of (1 - cos(z, m_y))
    unlabeled  x_u:  lambda(t) { Dice distance of S(x_u + r) from S(x_u)
                                 + a mean over classes of (1 - cos(z, m_c)), c = argmax S(x_u) }

Deviates from [0] and its released code: the background is a class like others (released code: never
contrasted); the surest features are those of greatest probability where S is right (released code:
those that a trained selector scores lowest), and all count alike (a selector can lower the loss by
looking away); at most 4,096 voxels of each class are drawn, layer instead of batch normalisation;
noise on unlabeled patches alone, its size a deviation of each voxel (released code: a norm, which
depends on the patch); a Dice distance with squares, 0 for equal predictions (released code: without
them in 3D, so that it sharpens predictions as well), and without the background; several classes,
regions, an ignore label and padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from torch import Tensor, nn

from nnunet_semisup.losses.activation import foreground_probabilities
from nnunet_semisup.losses.adversarial import adversarial_noise
from nnunet_semisup.losses.consistency import dice_distance
from nnunet_semisup.losses.targets import labels_of_target, pseudo_label
from nnunet_semisup.networks.decode import feature_width
from nnunet_semisup.networks.heads import WithHeads
from nnunet_semisup.networks.prototypes import ClassPrototypes
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.ranges import Weight
from nnunet_semisup.training.semi_supervised import SemiSupervisedTrainer


class nnUNetTrainerSSNet(SemiSupervisedTrainer):
    """Train against adversarial noise, and features towards prototypes of classes ([0])."""

    unlabeled_weight: Weight = 1.0
    """Greatest weight of both terms (released code, left atrium)."""
    prototype_weight: Weight = 0.1
    """Weight of the attraction relative to the smoothness (released code)."""
    noise: Weight = 0.01
    """Deviation of the adversarial noise; released code: 0.01 in 3D (norm 10), 0.023 in 2D."""

    def build_training_network(self, predictor: Any) -> nn.Module:
        """Give out the features that the segmentation stands on."""
        return WithHeads(predictor, {"features": nn.Identity()})

    def trained_outside(self) -> nn.ModuleDict:
        """Return what the base gives, with projection, prediction and memory of the features."""
        outside = super().trained_outside()
        width, outputs = feature_width(self.student.decoder), self.planned_network.output_channels
        outside["prototypes"] = ClassPrototypes(width, outputs, self.regions)
        return outside

    @property
    def prototypes(self) -> ClassPrototypes:
        """Projection, prediction and memory of the features."""
        return cast(ClassPrototypes, self._outside["prototypes"])

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        weight = self.current_unlabeled_weight
        seen = self.student_pass(labeled.image, "labeled")
        terms = self.supervised_terms(seen, labeled)
        if weight > 0:
            label = labels_of_target(labeled.target, self.label_manager.ignore_label, self.regions)
            drawn = self.prototypes.draw(seen.parts["features"], label)
            self.prototypes.remember(drawn, self.full_resolution(seen.logits))
            distance = self.prototypes.distance(drawn)
            terms["agreement_labeled"] = weight * self.prototype_weight * distance
        yield terms
        del seen, terms  # Memory for the next pass.
        if weight == 0:
            return

        seen = self.student_pass(unlabeled.image, "unlabeled", unlabeled.valid)
        logits = self.full_resolution(seen.logits).detach()
        label = pseudo_label(logits, self.regions, None, unlabeled.valid)
        distance = self.prototypes.distance(self.prototypes.draw(seen.parts["features"], label))
        yield {"consistency_classes": weight * self.prototype_weight * distance, **seen.terms}
        del seen, distance

        target = foreground_probabilities(logits, self.regions)

        def moved_by(noise: Tensor) -> Tensor:
            image = unlabeled.masked_like_image(unlabeled.image + noise)
            seen = self.student_pass(image, "moved", unlabeled.valid)
            probs = foreground_probabilities(self.full_resolution(seen.logits), self.regions)
            return dice_distance(probs, target, unlabeled.valid)

        noise = adversarial_noise(moved_by, unlabeled.image, self.noise, self.grad_scaler)
        yield {"consistency": weight * moved_by(noise)}
