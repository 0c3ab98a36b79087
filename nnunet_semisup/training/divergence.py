"""Signs of a training that cannot recover."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

LAST_STEPS = 10
"""Steps at an epoch's end that must all have failed for a training to count as diverged."""


def all_finite(parameters: Iterable[Tensor]) -> bool:
    """Tell whether no weight is NaN or Inf; waits for the device."""
    return bool(torch.stack([p.isfinite().all() for p in parameters]).all())


def losses_failed(losses: np.ndarray) -> bool:
    """Tell whether the last steps of an epoch all had a loss of NaN or Inf.

    On GPUs the loss is scaled, such steps are left out and the weights stay as they are: the
    training would run on without learning anything.

    Args:
        losses: ``(steps,)`` of the epoch.
    """
    return not np.isfinite(losses[-LAST_STEPS:]).any()


def divergence_message(epoch: int, what: str, terms: Sequence[str]) -> str:
    """Return what a diverged training tells.

    Args:
        epoch: in which it happened.
        what: ``weights`` or ``losses``.
        terms: names of the loss terms that are NaN or Inf, where they are recorded.
    """
    names = ", ".join(terms)
    where = f" (in semisup_terms.csv: {names})" if names else ""
    weight = " or the weight of the term" if names else ""
    return (
        f"The training diverged in epoch {epoch}{where}: {what} are NaN or Inf. "
        f"The checkpoints of the epochs before are as they were. Lower initial_lr{weight} by "
        "nnUNet_semisup_set, then continue with --c or start anew."
    )
