"""ARCO: classes contrasted by voxels that are drawn in groups, so that the draw varies less.

[0] You et al., Rethinking semi-supervised medical image segmentation: a variance-reduction
    perspective, NeurIPS 2023, arXiv 2302.01735.

Per step, with S the student and T its average, z and z' their representations of voxels (S predicts
T's), w and w' those of the whole patch, and y' = argmax T(x_u):
    always     x_l:  L_sup(S(x_l), y)
    at first   x_u:  KL of the comparisons of z' and z, w' and w, with earlier unlabeled patches
    after it   x_u:  a CE(S(strong(x_u)), y'), a the share of the image where T is sure
               x_u:  l3 (2 - 2 cos) of z and the nearest of earlier z'
               x:    l1 a mean over classes c and drawn voxels of c of
                     -log(e^(z.m / t) / (e^(z.m / t) + sum of e^(z.n / t))), with m the mean of z'
                     over c and n drawn z' of voxels not of c, of the last steps
A voxel's class is its label, or y' where T is sure. Draws are by patch, grid cell and class
(losses/stratified.py).

Deviates from [0] and its released code: nnU-Net's loss, schedule and augmentation, the student's
view is stronger in intensities, no CutMix, no equivariance loss; pre-training is the first part of
the same run; one head for z in both parts, pooled to cells where patches are compared (code: whole
maps); KL(T || S) as in the code ([0]: its arguments the other way round); neighbours are chosen by
the teacher, and the student is drawn to them; negatives are all voxels not of c (code: next to
none are found), proportionally drawn from cells of the image (code: from parts of a list of voxels,
the last of them less often); classes are skipped by their number; regions, padding, ignore label.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from nnunet_semisup.losses.consistency import weighted_cross_entropy
from nnunet_semisup.losses.prototypes import classes_of
from nnunet_semisup.losses.targets import (
    PseudoLabel,
    pseudo_label,
    weighted_by_image,
)
from nnunet_semisup.networks.class_contrast import CELLS, ClassContrast, EarlierPatches
from nnunet_semisup.networks.representation import RepresentationNetwork
from nnunet_semisup.networks.training_network import Outputs
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.ranges import Fraction, Weight
from nnunet_semisup.training.teacher import TeacherTrainer


class nnUNetTrainerARCO(TeacherTrainer):
    """Contrast classes by voxels drawn in groups, after relations between patches ([0])."""

    unlabeled_weight: Weight = 1.0
    """Weight of all terms but the labels' own ([0]: 1 for pseudo-labels)."""
    rampup_length: Fraction = 0.0
    """Fraction of training over which that weight rises; none in [0]."""
    pretrain: Fraction = 1 / 3
    """Fraction of training before classes are contrasted ([0]: 100 of 300 epochs)."""
    contrast_weight: Weight = 0.01
    """Weight l1 of the contrast of classes, relative to ``unlabeled_weight`` ([0])."""
    neighbour_weight: Weight = 1.0
    """Weight l3 of the nearest neighbours, relative to ``unlabeled_weight`` ([0])."""
    confidence_threshold: Fraction | None = 0.97
    """Confidence from which the teacher is sure (released code); ``None``: always."""
    sampling: Literal["sg", "sag", "ns"] = "sg"
    """``sg``: in groups; ``sag``: each draw also mirrored in its group; ``ns``: plain."""

    def build_training_network(self, predictor: Any) -> nn.Module:
        """Give out representations of voxels and of whole patches."""
        return RepresentationNetwork(predictor, self.dims)

    def followed(self) -> nn.Module:
        """Return the student with its representations, which the teacher has as well."""
        network: nn.Module = self.training_network
        return network

    def finish_networks(self) -> None:
        """Prepare the teacher's pass with representations, too."""
        super().finish_networks()
        self._teaching = self.compiled(self.teacher.module)
        self.apply_precision(self._teaching)

    def trained_outside(self) -> nn.ModuleDict:
        """Return what the base gives, with the memories of voxels and of earlier patches."""
        outside = super().trained_outside()
        outputs = self.planned_network.output_channels
        outside["classes"] = ClassContrast(outputs + self.regions, self.sampling)
        outside["cells"] = EarlierPatches(self.dims, CELLS)
        outside["patches"] = EarlierPatches(self.dims, 1)
        return outside

    @property
    def dims(self) -> int:
        """Number of axes of a patch."""
        return len(self.configuration_manager.patch_size)

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        weight = self.current_unlabeled_weight
        if weight == 0:
            yield self.labeled_terms(labeled)
        elif not self.passed(self.pretrain):
            yield from self.relate_patches(labeled, unlabeled, weight)
        else:
            yield from self.contrast_classes(labeled, unlabeled, weight)

    def relate_patches(
        self, labeled: Labeled, unlabeled: Unlabeled, weight: float
    ) -> Iterator[Terms]:
        """Yield the terms of the first part of the training ([0], E.1)."""
        yield self.labeled_terms(labeled)

        taught = self.teach(unlabeled.image).parts
        seen = self.student_pass(unlabeled.strong_view(), "unlabeled", unlabeled.valid)
        cells, patches = (
            cast(EarlierPatches, self._outside[name]).relations(*both, unlabeled.valid)
            for name, both in (
                ("cells", (seen.parts.voxels, taught.voxels)),
                ("patches", (seen.parts.whole, taught.whole)),
            )
        )
        named = {"consistency_cells": weight * cells, "consistency_patches": weight * patches}
        yield {**named, **seen.terms}

    def contrast_classes(
        self, labeled: Labeled, unlabeled: Unlabeled, weight: float
    ) -> Iterator[Terms]:
        """Yield the terms of the second part of the training ([0], E.2 and E.3)."""
        contrast = cast(ClassContrast, self._outside["classes"])
        given, taught = self.teach(labeled.image), self.teach(unlabeled.image)
        label = self.known_labels(self.with_filled_gaps(labeled))
        sure = pseudo_label(taught.logits, self.regions, self.confidence_threshold, unlabeled.valid)
        spatial = taught.parts.voxels.shape[2:]
        both = [self.classes(one.resized(spatial)) for one in (label, sure)]
        voxels = torch.cat([given.parts.voxels, taught.parts.voxels])
        means = contrast.learn(voxels, torch.cat(both))
        shares = [weight * self.contrast_weight * len(one) / len(voxels) for one in both]
        del given, voxels  # Memory for the next pass.

        seen = self.student_pass(labeled.image, "labeled")
        distance = contrast.distance(seen.parts.voxels, both[0], means)
        yield {**self.supervised_terms(seen, labeled), "contrast_labeled": shares[0] * distance}
        del seen, distance

        seen = self.student_pass(unlabeled.strong_view(), "unlabeled", unlabeled.valid)
        told = weighted_by_image(sure, unlabeled.valid)
        logits = self.full_resolution(seen.logits)
        loss = weighted_cross_entropy(logits, told, self.regions, among=unlabeled.valid)
        distance = contrast.distance(seen.parts.voxels, both[1], means)
        earlier = cast(EarlierPatches, self._outside["cells"])
        near = earlier.neighbours(seen.parts.voxels, taught.parts.voxels, unlabeled.valid)
        yield {
            "consistency": weight * loss,
            "consistency_neighbours": weight * self.neighbour_weight * near,
            "contrast_unlabeled": shares[1] * distance,
            "_confident": sure.weight.mean(),
            **seen.terms,
        }

    def classes(self, label: PseudoLabel) -> Tensor:
        """Return where each class is, ``(B, K, *spatial)`` bool; regions have class 0 besides."""
        outputs = self.planned_network.output_channels
        return classes_of(label, outputs + self.regions, self.regions)

    @torch.no_grad()
    def teach(self, image: Tensor) -> Outputs:
        """Return the teacher's logits and representations of images ``(B, C, *spatial)``."""
        return cast(Outputs, self._teaching(image, predicted=False))
