"""GraphSeg's equations could not be had: this is the closest reading of its abstract.

[0] Liu et al., Towards generalizable retina vessel segmentation with deformable graph priors,
    NeurIPS 2025: abstract alone.
[1] Gao et al., BayeSeg, MICCAI 2022, and released code: image as structure plus noise.

Per step, with x the structure and m the noise of an image, S the segmentation of x, B(.) the
negative evidence bound ([1], losses/decomposition.py), G the skeletons' graphs of labeled patches
before, T the map that lays a graph over an image, and E the energy of its edges:
    labeled    x_l:  L_sup(S(x), y) + a B(x, m, S) + E(T G, y) + R(T)
    unlabeled  x_u:  lambda(t) { E(T G, S(x)) + R(T) + a B(x, m, S) }
    E is the soft minimum over G of the mean over edges of 1 - (p (1 - q))^2, p along and q beside
    them, R the same on a coarser map, without gradient to it, and b times the bending of T; on
    labeled patches E and R teach T alone

From [0]: structure-preserved and structure-degraded components, a deformable graph prior from an
atlas, a differentiable alignment and an unsupervised energy. From [1]: the bound and its constants.
Ours: all of E and T, the atlas (no retinal atlas can be handed on; labeled patches give theirs), in
the frame of a patch and not of an eye. Deviates from [1] as losses/decomposition.py says; smaller
networks, the structure's around the image; several channels, classes, regions, an ignore label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from nnunet_semisup.data.labeled_views import MakeMap
from nnunet_semisup.data.skeleton_graph import skeleton_graphs
from nnunet_semisup.losses.activation import foreground_probabilities, probabilities
from nnunet_semisup.losses.decomposition import class_maps, negative_evidence
from nnunet_semisup.losses.targets import labels_of_target, one_hot
from nnunet_semisup.networks.decomposition import DecomposingNetwork, StructureUNet
from nnunet_semisup.networks.graph_prior import Aligned, GraphPrior
from nnunet_semisup.networks.planned import PlannedNetwork
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.passes import Pass
from nnunet_semisup.training.ranges import Count, Weight
from nnunet_semisup.training.semi_supervised import SemiSupervisedTrainer


class nnUNetTrainerGraphSeg(SemiSupervisedTrainer):
    """Train on an image's structure, with graphs of labeled skeletons laid over it ([0], [1])."""

    labeled_maps: ClassVar[Mapping[str, MakeMap]] = {"graphs": skeleton_graphs}

    unlabeled_weight: Weight = 0.1
    """Greatest weight of what unlabeled patches and the atlas bring (a guess)."""
    decomposition_weight: Weight = 10.0
    """Weight of the evidence bound, in which a squared residual weighs at most 1 (a guess)."""
    bending_weight: Weight = 10.0
    """Weight of the bending of free-form maps relative to the energy (a guess)."""
    atlas_size: Count = 32
    """Graphs of a class in the atlas, the last ones of labeled patches (a guess)."""

    @classmethod
    def extend_network(cls, network: nn.Module, plan: PlannedNetwork) -> nn.Module:
        """Put the structure network before the plan's."""
        return StructureUNet(super().extend_network(network, plan), plan.input_channels)

    def build_training_network(self, predictor: Any) -> nn.Module:
        """Add the network of the noise."""
        return DecomposingNetwork(predictor, self.planned_network.input_channels)

    def trained_outside(self) -> nn.ModuleDict:
        """Return what the base gives, with the atlas and its aligner."""
        outside = super().trained_outside()
        foreground = self.planned_network.output_channels - (not self.regions)
        width = self.student.encoder.output_channels[-1]
        outside["prior"] = GraphPrior(foreground, self.atlas_size, width)
        return outside

    @property
    def prior(self) -> GraphPrior:
        """The atlas and its aligner."""
        return cast(GraphPrior, self._outside["prior"])

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        weight = self.current_unlabeled_weight
        seen = self.student_pass(labeled.image, "labeled")
        terms = self.supervised_terms(seen, labeled)
        terms["decomposition_labeled"] = self.bound(seen, labeled.image)
        if weight > 0:
            label = labels_of_target(labeled.target, self.label_manager.ignore_label, self.regions)
            truth = one_hot(label.target, self.planned_network.output_channels, self.regions)
            truth = truth if self.regions else truth[:, 1:]
            aligned = self.prior(seen.parts.features, truth, label.weight[:, :1] > 0)
            terms["alignment_labeled"] = aligned.energy + self.alignment(aligned)
            self.prior.remember(labeled.maps["graphs"])
        yield terms
        del seen, terms  # Memory for the next pass.
        if weight == 0:
            return

        seen = self.student_pass(unlabeled.image, "unlabeled", unlabeled.valid)
        probs = foreground_probabilities(self.full_resolution(seen.logits), self.regions)
        aligned = self.prior(seen.parts.features, probs, unlabeled.valid)
        bound = self.bound(seen, unlabeled.image, unlabeled.valid)
        yield {
            "consistency": weight * aligned.energy,
            "alignment_unlabeled": weight * self.alignment(aligned),
            "decomposition_unlabeled": weight * bound,
            **seen.terms,
        }

    def alignment(self, aligned: Aligned) -> Tensor:
        """Return what teaches the maps alone: the coarse energy, and the bending."""
        return aligned.coarse + self.bending_weight * aligned.bending

    def bound(self, seen: Pass, image: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the weighted negative evidence bound of a pass.

        Args:
            seen: the pass.
            image: ``(B, C, h, w)`` that it saw.
            valid: ``(B, 1, h, w)`` bool, false in padding.
        """
        probs = probabilities(self.full_resolution(seen.logits), self.regions)
        maps = class_maps(probs, self.regions)
        structure, noise, _ = seen.parts
        evidence = negative_evidence(image, structure, noise, maps, valid)
        return self.decomposition_weight * evidence.total
