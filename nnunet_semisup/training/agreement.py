"""Trainers whose outputs for a patch agree with each other, labeled or not."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.passes import Pass
from nnunet_semisup.training.semi_supervised import SemiSupervisedTrainer


class AgreementTrainer(SemiSupervisedTrainer):
    """Make one pass of each stream; average the disagreement within it over all patches of both."""

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
        seen = self.student_pass(labeled.image, "labeled")
        terms = self.supervised_terms(seen, labeled)
        if weight > 0:
            terms["agreement_labeled"] = weight * share * self.disagreement(seen)
        yield terms
        del seen, terms  # Memory for the next pass.
        if weight == 0:
            return

        seen = self.student_pass(unlabeled.image, "unlabeled", unlabeled.valid)
        distance = self.disagreement(seen, unlabeled.valid)
        yield {"consistency": weight * (1 - share) * distance, **seen.terms}
