"""LoMix on labeled cases; the semi-supervised trainers take it by ``labeled_loss=lomix``.

The loss: :mod:`nnunet_semisup.losses.lomix`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nnunet_semisup.losses.lomix import Weights
from nnunet_semisup.trainers.supervised import nnUNetTrainerSupervised
from nnunet_semisup.training.batches import Labeled, Terms, labeled_part
from nnunet_semisup.training.checkpoint import refuse_other_trainer
from nnunet_semisup.training.labeled import LabeledLoss, LabeledTrainer


class nnUNetTrainerLoMix(LabeledTrainer, nnUNetTrainerSupervised):
    """Train as nnUNetTrainer, by the loss of its outputs and of learned mixtures of them."""

    labeled_loss: LabeledLoss = "lomix"
    """Loss of labeled patches; with ``nnunet`` this is nnUNetTrainerSupervised."""
    lomix_weights: Weights = "fixed"
    """Weights of the terms: ``fixed`` by resolution, or learned: ``log``, ``softplus`` (paper)."""

    def compute_losses(self, labeled: Labeled) -> Iterator[Terms]:
        output = self.network(labeled.image)
        yield {"supervised": self.supervised_loss(output, labeled.target, labeled.gaps)}

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make one optimizer step; return the loss as nnU-Net does."""
        labeled = labeled_part(batch, self.device, self.partial_labels)
        total, _ = self.optimize(self.compute_losses(labeled))
        return {"loss": total.cpu().numpy()}

    def check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that another trainer wrote, which has no mixtures.

        Raises:
            UserError: it did.
        """
        refuse_other_trainer(checkpoint, type(self).__name__)
