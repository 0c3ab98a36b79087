"""MATCH: structures that dropout and earlier weights find again stand out, others vanish; 2D.

[0] Xu et al., MATCH: Multi-faceted adaptive topo-consistency for semi-supervised histopathology
    segmentation, NeurIPS 2025, arXiv 2510.01532, as a summary relays it (no text, no code).

Per step, with T the teacher, S the student, and A its strong view:
    labeled    x_l:  L_sup(S(x_l), y)
    unlabeled  x_u:  lambda(t) mean of (S(A(x_u)) - T(x_u))^2
now and then, on the middle of one x_u:
    intra      lambda(t) a L_topo of four passes S(x_u), each with dropout of its own
    temporal   lambda(t) b L_topo of S(x_u) after three earlier snapshots of S on x_u
where L_topo is the mean over structures, born at pixel b and dead at d (superlevel sets of the
foreground's p), of (1 - p(b))^2 + p(d)^2 for those found again in at least three of the four maps,
one after another, and of (p(b) - p(d))^2 for the others. Those of two adjacent maps are matched by
overlap, persistence and distance of their peaks (Hungarian algorithm).

Ours, because [0] could not be had: all weights, rate and place of dropout, when and how often, the
middle of one patch, that half of a structure's peak bounds its pixels, in how many maps it is to be
found (were any match enough, the older snapshots would never decide), the means over structures and
over classes or regions, probabilities in steps of 1/256, at most 256 structures of a map.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from nnunet_semisup.errors import UserError
from nnunet_semisup.losses.activation import foreground_probabilities
from nnunet_semisup.losses.consistency import squared_difference
from nnunet_semisup.losses.structures import structure_loss
from nnunet_semisup.networks.dropout import add_dropout
from nnunet_semisup.networks.evaluating import evaluating
from nnunet_semisup.networks.snapshots import Snapshots
from nnunet_semisup.topology.structures import require_gudhi
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.inputs import Inputs
from nnunet_semisup.training.ranges import AtLeast, Between, Count, Fraction, Weight
from nnunet_semisup.training.settings import Settings
from nnunet_semisup.training.teacher import TeacherTrainer


class nnUNetTrainerMATCH(TeacherTrainer):
    """Train towards an EMA teacher, and structures towards those found again ([0]); in 2D."""

    unlabeled_weight: Weight = 0.1
    """Greatest weight of the unlabeled terms, the pixels' relative to it being 1 (ours)."""
    intra_weight: Weight = 0.1
    """Weight of the structures under dropout, relative to the pixels' (ours)."""
    temporal_weight: Weight = 0.1
    """Weight of the structures after earlier snapshots, relative to the pixels' (ours)."""
    dropout: Annotated[float, Between(0, 0.9)] = 0.2
    """Probability of a channel to be dropped at the two deepest stages (ours)."""
    facets: Annotated[int, AtLeast(2)] = 4
    """Maps that are compared: passes with dropout, and snapshots with the student ([0])."""
    consistent_facets: Annotated[int, AtLeast(2)] = 3
    """Maps, one after another, in which a structure must be found to stand out (ours)."""
    snapshot_interval: Count = 5
    """Epochs between two snapshots (ours)."""
    match_start: Fraction = 0.2
    """Fraction of training after which structures are compared (ours)."""
    match_every: Count = 4
    """Steps from one in which they are compared to the next; the host works then (ours)."""
    match_crop: Annotated[int, AtLeast(8)] = 192
    """Greatest edge of the middle of the patch where they are compared, in pixels (ours)."""

    snapshots: Snapshots
    _snapshot_network: nn.Module

    def check_settings(self, settings: Settings) -> None:
        """Refuse to look for a structure in more maps than there are."""
        super().check_settings(settings)
        facets, least = (settings.values[name] for name in ("facets", "consistent_facets"))
        if least > facets:
            raise UserError(
                f"consistent_facets={least} of facets={facets}: a structure cannot be found in "
                f"more maps than there are; give consistent_facets from 2 to {facets}, or more "
                "facets"
            )

    def check_inputs(self, inputs: Inputs) -> None:
        """Refuse to train without gudhi."""
        super().check_inputs(inputs)
        if not inputs.validates_only:
            require_gudhi(type(self).__name__)

    def build_training_network(self, predictor: Any) -> nn.Module:
        """Give the network dropout; copies of it have it too, where it is off."""
        add_dropout(predictor, self.dropout)
        return super().build_training_network(predictor)

    def finish_networks(self) -> None:
        """Prepare the network that runs with the weights of snapshots, too."""
        self.snapshots = Snapshots(self.student, self.facets - 1)
        self._snapshot_network = self.compiled(self.snapshots.module)
        self.apply_precision(self._snapshot_network)
        super().finish_networks()

    @property
    def period(self) -> int:
        """Steps from one in which structures are compared to the next."""
        return self.match_every

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        yield self.labeled_terms(labeled)

        weight = self.current_unlabeled_weight
        if weight == 0:
            return
        target = self.teacher_logits(unlabeled.image)
        seen = self.student_pass(unlabeled.strong_view(), "unlabeled", unlabeled.valid)
        student = self.full_resolution(seen.logits)
        distance = squared_difference(student, target, self.regions, unlabeled.valid)
        yield {"consistency": weight * distance, **seen.terms}
        del seen, student, distance  # Memory for the next pass.

        self.snapshots.follow(self.student, self.current_epoch, self.snapshot_interval)
        if self.passed(self.match_start) and self.step_number % self.match_every == 0:
            image, valid = unlabeled.image[:1], unlabeled.valid[:1]
            if self.intra_weight > 0:
                yield self.intra_terms(image, valid, weight * self.intra_weight)
            if self.temporal_weight > 0:
                yield self.temporal_terms(image, valid, weight * self.temporal_weight)

    def intra_terms(self, image: Tensor, valid: Tensor, weight: float) -> Terms:
        """Return the loss of the structures of several passes with dropout ([0], intra)."""
        images, valids = (one.expand(self.facets, *one.shape[1:]) for one in (image, valid))
        seen = self.student_pass(images.contiguous(), "intra", valids)
        loss, log = structure_loss(self.middle(seen.logits, valid), self.consistent_facets)
        logged = {f"_intra_{name}": value for name, value in log.items()}
        return {"consistency_intra": weight * loss, **seen.terms, **logged}

    def temporal_terms(self, image: Tensor, valid: Tensor, weight: float) -> Terms:
        """Return the loss of the student's structures after those of snapshots ([0], temporal)."""
        past = self.snapshots.outputs(image, self._snapshot_network)
        with evaluating(self.network):
            seen = self.student_pass(image, "temporal", valid)
        maps = torch.cat([self.middle(logits, valid) for logits in (*past, seen.logits)])
        loss, log = structure_loss(maps, self.consistent_facets, [len(past)])
        logged = {f"_temporal_{name}": value for name, value in log.items()}
        return {"consistency_temporal": weight * loss, **seen.terms, **logged}

    def middle(self, logits: Any, valid: Tensor) -> Tensor:
        """Return the foreground's probabilities in the middle of the patch, 0 in padding."""
        probs = foreground_probabilities(self.full_resolution(logits), self.regions) * valid
        edges = [min(self.match_crop, size) for size in probs.shape[2:]]
        starts = [(size - edge) // 2 for size, edge in zip(probs.shape[2:], edges, strict=True)]
        rows, columns = (slice(s, s + edge) for s, edge in zip(starts, edges, strict=True))
        return probs[:, :, rows, columns]

    def extra_state(self) -> dict[str, Any]:
        """Return what the base gives, with the snapshots."""
        return {**super().extra_state(), "snapshots": self.snapshots.state_dict()}

    def load_extra_state(self, state: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        """Restore what :meth:`extra_state` gave."""
        super().load_extra_state(state, checkpoint)
        self.snapshots.load_state_dict(state["snapshots"])
