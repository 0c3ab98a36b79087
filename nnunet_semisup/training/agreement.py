"""Trainers whose outputs for a patch agree with each other, labeled or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.passes import Pass
from nnunet_semisup.training.semi_supervised import SemiSupervisedTrainer


class AgreementTrainer(SemiSupervisedTrainer):
    """Make one pass of each stream; average the disagreement within it over all patches of both."""

    how_to_pass: ClassVar[Mapping[str, Any]] = {}
    """Further arguments of the training network's ``forward``."""

    one_pass: bool = False
    """Passes labeled and unlabeled patches at once: the same step, with twice the activations."""

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
        at_once = self.one_pass and weight > 0
        if at_once:
            seen, other = self.both_passes(labeled.image, unlabeled.image)
        else:
            seen = self.student_pass(labeled.image, "labeled", **self.how_to_pass)
        terms = self.supervised_terms(seen, labeled)
        if weight > 0:
            terms["agreement_labeled"] = weight * share * self.disagreement(seen)
        if not at_once:
            yield terms
            del seen, terms  # Memory for the next pass.
            if weight == 0:
                return
            image, valid = unlabeled.image, unlabeled.valid
            other, terms = self.student_pass(image, "unlabeled", valid, **self.how_to_pass), {}

        distance = self.disagreement(other, unlabeled.valid)
        yield {**terms, "consistency": weight * (1 - share) * distance, **other.terms}

    def both_passes(self, labeled: Tensor, unlabeled: Tensor) -> tuple[Pass, Pass]:
        """Run the network once, on two batches of images ``(B, C, *spatial)``."""
        both = self.student_pass(torch.cat([labeled, unlabeled]), "both", **self.how_to_pass)
        return both.split(len(labeled))
