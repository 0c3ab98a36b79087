"""Difference of predictions of one scan: of folds or mirrored images, and of two rounds.

[1] Roy et al., Inherent brain segmentation quality control from fully convnet Monte Carlo sampling,
    MICCAI 2018, arXiv 1804.07046: the mean Dice between pairs of predictions, class by class.
[2] Huang et al., Revisiting nnU-Net for iterative pseudo labeling and efficient sliding window
    inference, FLARE 2022 (github.com/Ziyan-Huang/FLARE22, select.ipynb): the voxels that changed
    since the round before, as a part of the foreground.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def between_votes(votes: npt.NDArray[Any], values: Sequence[int]) -> float | None:
    """Return 1 less the mean Dice of a class between pairs of label maps, from 0 to 1 ([1]).

    Args:
        votes: ``(N, *spatial)``.
        values: label values of the class.

    Returns:
        ``None`` where there are no two maps, or none has the class. Pairs without it do not count.
    """
    masks = np.isin(votes, list(values)).reshape(len(votes), -1).astype(np.float32)
    common: npt.NDArray[Any] = masks @ masks.T
    sizes: npt.NDArray[Any] = np.diag(common)
    first, second = np.triu_indices(len(votes), 1)
    total: npt.NDArray[Any] = sizes[first] + sizes[second]
    has_class = total > 0
    if not has_class.any():
        return None
    dice: npt.NDArray[Any] = 2 * common[first, second][has_class] / total[has_class]
    return 1.0 - float(dice.mean())


def between_rounds(before: npt.NDArray[Any], now: npt.NDArray[Any]) -> float:
    """Return the voxels whose label changed, as a part of the foreground now ([2]).

    Args:
        before, now: label maps ``(*spatial)`` on one grid.

    Returns:
        0 where nothing changed; as a part of that before where there is no foreground now.
    """
    foreground = int(np.count_nonzero(now)) or int(np.count_nonzero(before)) or 1
    return int(np.count_nonzero(before != now)) / foreground
