"""Sums over the patches of all processes of a distributed training."""

from __future__ import annotations

import torch.distributed as dist
from nnunetv2.utilities.ddp_allgather import AllGatherGrad
from torch import Tensor


def over_processes(sums: Tensor) -> Tensor:
    """Return sums over the patches of all processes, with gradient, as nnU-Net's Dice has them.

    A mean over what was selected is then that of one process with all patches; the mean of each
    process's own would weigh a voxel more where few others were selected.

    Args:
        sums: of this process; alone, they are returned.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return sums
    gathered: Tensor = AllGatherGrad.apply(sums)
    return gathered.sum(0)
