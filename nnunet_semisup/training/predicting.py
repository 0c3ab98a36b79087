"""Which network teaches and which one predicts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_semisup.training.ema import EMATeacher

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as _Host
else:
    _Host = object


class Predicting(_Host):
    """The teacher's output in training, and validation with the weights that predict."""

    network: Any
    student: Any
    teacher: EMATeacher | None
    predict_with_teacher: bool
    _teacher_network: nn.Module | None

    def full_resolution(self, output: Any) -> Tensor:
        """The output at the patch's resolution."""
        return output[0] if isinstance(output, (list, tuple)) else output

    @torch.no_grad()
    def teacher_logits(self, image: Tensor) -> Tensor:
        """``(B, C, *spatial)`` logits of the teacher at full resolution, without gradient."""
        assert self._teacher_network is not None
        return self.full_resolution(self._teacher_network(image))

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Sets it on the student; the teacher only ever gives full resolution in training."""
        self.student.decoder.deep_supervision = enabled
        if self.teacher is not None:
            decoder: Any = self.teacher.module.decoder
            decoder.deep_supervision = False

    @contextmanager
    def predicting(self, deep_supervision: bool) -> Iterator[None]:
        """Inside, ``self.network`` is the network whose weights predict."""
        if self.teacher is None or not self.predict_with_teacher:
            yield
            return
        training, self.network = self.network, self._teacher_network
        decoder: Any = self.teacher.module.decoder
        decoder.deep_supervision = deep_supervision
        try:
            yield
        finally:
            self.network = training
            decoder.deep_supervision = False

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's sliding-window validation with the weights that predict."""
        with self.predicting(deep_supervision=False):
            if isinstance(self.network, DistributedDataParallel):
                # Its buffers are exchanged at each pass, which ranks without cases never make.
                self.network = self.network.module
            super().perform_actual_validation(save_probabilities)
