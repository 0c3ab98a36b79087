"""Trainers whose outputs for a patch agree with each other, labeled or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from torch import Tensor

from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.passes import Pass
from nnunet_semisup.training.semi_supervised import SemiSupervisedTrainer


class AgreementTrainer(SemiSupervisedTrainer):
    """Make one pass of each stream; average the disagreement within it over all patches of both."""

    how_to_pass: ClassVar[Mapping[str, Any]] = {}
    """Further arguments of the training network's ``forward``."""

    def disagreement(self, seen: Pass, valid: Tensor | None = None) -> Tensor:
        """Return how far the outputs of a pass are from each other, a mean over its patches.

        Args:
            seen: the pass.
            valid: ``(B, 1, *spatial)`` bool, false in padding.
        """
        raise NotImplementedError

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        weight = self.current_unlabeled_weight
        share = len(labeled.image) / (len(labeled.image) + len(unlabeled.image))
        seen = self.student_pass(labeled.image, "labeled", **self.how_to_pass)
        terms = self.supervised_terms(seen, labeled)
        if weight > 0:
            terms["agreement_labeled"] = weight * share * self.disagreement(seen)
        yield terms
        del seen, terms  # Memory for the next pass.
        if weight == 0:
            return

        image, valid = unlabeled.image, unlabeled.valid
        seen = self.student_pass(image, "unlabeled", valid, **self.how_to_pass)
        distance = self.disagreement(seen, valid)
        yield {"consistency": weight * (1 - share) * distance, **seen.terms}
