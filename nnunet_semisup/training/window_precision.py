"""Validation in which float16 rounds nothing, and how much that changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.distributed

from nnunet_semisup.inference.float32 import float32_validation

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as _Host
else:
    _Host = object


class WindowPrecision(_Host):
    """A hyper-parameter that every trainer of this package has, the supervised one included."""

    float32_windows: bool = False
    """Sums the windows of the final validation in float32; nnU-Net's float16 rounds at borders."""

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """As nnU-Net, or in float32, saying how many voxels that changes."""
        if not self.float32_windows:
            super().perform_actual_validation(save_probabilities)
            return
        with float32_validation() as predictors:
            super().perform_actual_validation(save_probabilities)
        counts = torch.tensor([[p.changed, p.voxels] for p in predictors]).sum(0)
        if self.is_ddp:
            of_ranks: list[torch.Tensor] = [counts] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(of_ranks, counts)
            counts = torch.stack(of_ranks).sum(0)
        changed, voxels = counts.tolist()
        self.print_to_log_file(
            f"Windows summed in float32: {changed} of {voxels} voxels have another class than by "
            f"nnU-Net's float16 ({changed / max(voxels, 1):.2e} of them), before resampling"
        )
