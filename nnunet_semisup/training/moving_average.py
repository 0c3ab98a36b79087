"""nnU-Net's moving average of the validation patches' Dice, over the epochs that have one.

nnU-Net 2.8.1 averages whatever an epoch gives. Where no class is in its validation patches, nor
predicted, the Dice is 0/0; the average is NaN from then on, and no epoch is ever the best again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

KEPT = 0.9
"""Weight of the average before in the one after, as in nnU-Net's logger."""

NO_FOREGROUND = (
    "No foreground in the validation patches of this epoch, which is left out of the "
    "moving average. If that happens often, raise num_val_iterations_per_epoch."
)


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


def leave_out_epochs_without_dice(logger: Any) -> bool:
    """Put right the last average in nnU-Net's logger; tell whether the epoch has no Dice."""
    averages, dice = logger.get_value("ema_fg_dice", None), logger.get_value("mean_fg_dice", -1)
    if np.isnan(averages[-1]):
        averages[-1] = next_average(averages[:-1], dice)
    return bool(np.isnan(dice))
