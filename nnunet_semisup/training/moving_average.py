"""nnU-Net's moving average of the validation patches' Dice, over the epochs that have one.

nnU-Net 2.8.1 averages whatever an epoch gives. Where no class is in its validation patches, nor
predicted, the Dice is 0/0; the average is NaN from then on, and no epoch is ever the best again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as _Host
else:
    _Host = object

KEPT = 0.9
"""Weight of the average before in the one after, as in nnU-Net's logger."""


def next_average(before: list[float], dice: float) -> float:
    """Return the average after an epoch.

    Args:
        before: the averages of the epochs before, NaN where there was none yet.
        dice: the epoch's; with NaN the average stays.
    """
    known = [value for value in before if not np.isnan(value)]
    if np.isnan(dice):
        return known[-1] if known else dice
    return KEPT * known[-1] + (1 - KEPT) * dice if known else dice


class MovingAverage(_Host):
    """The part of a trainer that leaves epochs without a Dice out of the moving average."""

    _best_ema: float | None

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """As nnU-Net; says where an epoch's validation patches have no Dice."""
        super().on_validation_epoch_end(val_outputs)
        averages = self.logger.get_value("ema_fg_dice", None)
        dice = self.logger.get_value("mean_fg_dice", -1)
        if np.isnan(averages[-1]):
            averages[-1] = next_average(averages[:-1], dice)
        if np.isnan(dice):
            self.print_to_log_file(
                "No foreground in the validation patches of this epoch, which is left out of the "
                "moving average. If that happens often, raise num_val_iterations_per_epoch."
            )

    def on_epoch_end(self) -> None:
        """As nnU-Net, for which no epoch is the best before one has a Dice."""
        if self._best_ema is None and np.isnan(self.logger.get_value("ema_fg_dice", -1)):
            self._best_ema = np.nan
        super().on_epoch_end()
        if self._best_ema is not None and np.isnan(self._best_ema):
            self._best_ema = None
