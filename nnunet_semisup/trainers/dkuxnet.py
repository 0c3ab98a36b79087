"""DK-UXNet: queries whose distribution over the voxels agrees between two views of a patch.

[0] Semi-supervised medical image segmentation via query distribution consistency (DK-UXNet), ISBI
    2024, arXiv 2311.12364: its abstract, figures and supervised code. Its text could not be had.
[1] Yuan et al., Devil is in the queries (MaxQuery), CVPR 2023, arXiv 2304.00212.

Per step, with f a network with queries, S its probabilities and A the shares of its groups of
queries in each voxel, one group a class, of the strong (s) and the weak (w) view of a patch:
    labeled    x_l:  sum over v in s, w of L_sup(f(v), y) + q mean over layers of -log A_v[y]
    all        x:    lambda(t) (|S_s - [S_w]|^2 + |S_w - [S_s]|^2, and the same of A)
where [] passes no gradient, and | | is a mean over voxels and channels.

Ours, as [0] names the terms alone: the distances, the weights, the ramp, that both terms act on
labeled patches as well, that one network sees both views (``shared``).

Deviates from [0]'s code, which has no unlabeled images: what its network does
(:mod:`nnunet_semisup.architectures.kmax`); the query loss ([1]'s) is a mean over voxels (there a
sum), and of every layer (there of the last); groups follow from the classes or regions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from nnunet_semisup.architectures import kmax
from nnunet_semisup.architectures.planned_unet import inserts_of, with_insert
from nnunet_semisup.errors import UserError
from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.losses.consistency import mutual_distance
from nnunet_semisup.losses.queries import (
    group_labels,
    group_log_shares,
    group_sizes,
    query_distribution_loss,
)
from nnunet_semisup.losses.targets import PseudoLabel, labels_of_target
from nnunet_semisup.networks.decode import Decoded
from nnunet_semisup.networks.kmax_decoder import KMaxDecoder
from nnunet_semisup.networks.members import Members
from nnunet_semisup.networks.planned import PlannedNetwork
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.inputs import Inputs
from nnunet_semisup.training.passes import Pass
from nnunet_semisup.training.ranges import Weight
from nnunet_semisup.training.semi_supervised import SemiSupervisedTrainer


class nnUNetTrainerDKUXNet(SemiSupervisedTrainer):
    """Train queries to share the voxels of two views alike ([0])."""

    labeled_weak: ClassVar[bool] = True

    unlabeled_weight: Weight = 0.1
    """Greatest weight of the agreement of both views (ours)."""
    query_weight: Weight = 0.5
    """Weight of the query loss on labeled patches (ours)."""
    shared: bool = True
    """One network sees both views; otherwise a second one sees the weak view (ours)."""

    def check_inputs(self, inputs: Inputs) -> None:
        """Check as the base; also refuse plans whose network the queries do not go into."""
        super().check_inputs(inputs)
        configuration = inputs.configuration_manager.configuration
        if kmax.KMAX.name in inserts_of(configuration["architecture"]):
            return
        try:
            with_insert(configuration, kmax.KMAX.name)
        except UserError as error:
            raise UserError(f"{type(self).__name__}, {inputs.configuration}: {error}") from error

    @classmethod
    def extend_network(cls, network: Any, plan: PlannedNetwork) -> nn.Module:
        """Put the queries into the plan's network, unless its plans have them."""
        network = super().extend_network(network, plan)
        if not isinstance(network.decoder, KMaxDecoder):
            planned = plan.configuration_manager
            options = kmax.options(planned.network_arch_init_kwargs, planned.patch_size)
            kmax.install(network, **options)
        return network

    @classmethod
    def further_members(cls, predictor: Any, plan: PlannedNetwork) -> list[nn.Module]:
        """Build a second network, of other initial weights."""
        return [cls.build_network_architecture(*plan.arguments)]

    def build_training_network(self, predictor: nn.Module) -> nn.Module:
        """Add the second network where the views do not share one."""
        others = [] if self.shared else self.further_members(predictor, self.planned_network)
        return Members(predictor, others, shared_encoder=False)

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        assert labeled.weak is not None
        weight = self.current_unlabeled_weight
        share = len(labeled.image) / (len(labeled.image) + len(unlabeled.image))
        seen = self.both_views(labeled.image, labeled.weak, "labeled")
        terms = {**self.supervised_terms(seen, labeled), **self.query_terms(seen, labeled)}
        if weight > 0:
            distances = self.distances(seen)
            terms |= {f"agreement_labeled{n}": weight * share * d for n, d in distances.items()}
        yield terms
        del seen, terms  # Memory for the next pass.
        if weight == 0:
            return

        valid = unlabeled.valid
        seen = self.both_views(unlabeled.strong_view(), unlabeled.image, "unlabeled", valid)
        distances = self.distances(seen, valid)
        named = {f"consistency{n}": weight * (1 - share) * d for n, d in distances.items()}
        yield {**named, **seen.terms}

    def both_views(
        self, strong: Tensor, weak: Tensor, name: str, valid: Tensor | None = None
    ) -> Pass:
        """Return a pass whose members are the strong and the weak view of patches.

        Args:
            strong, weak: ``(B, C, *spatial)``.
            name: of the pass.
            valid: ``(B, 1, *spatial)`` bool, false in padding.
        """
        # With a network each, a guest sees those of the first one's images alone.
        both = torch.cat((valid, valid)) if self.shared and valid is not None else valid
        seen = self.student_pass(torch.cat((strong, weak)), name, both, apart=not self.shared)
        return seen._replace(parts=halves(seen.members[0])) if self.shared else seen

    def query_terms(self, seen: Pass, labeled: Labeled) -> Terms:
        """Return the query loss of each view's layers on labeled patches."""
        ignored = self.label_manager.ignore_label
        label = labels_of_target(labeled.target, ignored, self.regions)
        label = group_labels(label, self.regions)
        losses = [
            query_distribution_loss(one.masks, label, self.sizes(one)) for one in seen.members
        ]
        named = enumerate(losses, 1)
        return {f"queries_{number}": self.query_weight * loss for number, loss in named}

    def distances(self, seen: Pass, valid: Tensor | None = None) -> Terms:
        """Return how far both views are from each other, by the end of the terms' names.

        Args:
            seen: their pass.
            valid: ``(B, 1, *spatial)`` bool, false in padding.
        """
        outputs = [self.full_resolution(one.logits) for one in seen.members]
        probs = [probabilities(one, self.regions) for one in outputs]
        shares = [group_log_shares(one.masks[-1], self.sizes(one)).exp() for one in seen.members]
        at_shares = None
        if valid is not None:
            at_shares = PseudoLabel(valid, valid).resized(shares[0].shape[2:]).target
        return {
            "": mutual_distance(probs, [one.detach() for one in probs], valid),
            "_queries": mutual_distance(shares, [one.detach() for one in shares], at_shares),
        }

    def sizes(self, decoded: Decoded) -> list[int]:
        """Return the sizes of the groups of queries: one a class, or region and background."""
        groups = self.label_manager.num_segmentation_heads + int(self.regions)
        return group_sizes(decoded.masks[-1].shape[1], groups)


def halves(decoded: Decoded) -> tuple[Decoded, Decoded]:
    """Return what a network made of the first and of the second half of a batch."""
    first, second = (tree_map(lambda x: x.chunk(2)[number], decoded) for number in range(2))  # noqa: B023
    return first, second
