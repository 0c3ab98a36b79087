"""Trainers with a teacher: the moving average of the student's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nnunet_semisup.networks.supervision_switch import switch_deep_supervision
from nnunet_semisup.training.batches import unwrap
from nnunet_semisup.training.ema import EMATeacher
from nnunet_semisup.training.ranges import Fraction
from nnunet_semisup.training.semi_supervised import SemiSupervisedTrainer


class TeacherTrainer(SemiSupervisedTrainer):
    """Train with an EMA teacher, which predicts unless told otherwise."""

    ema_decay: Fraction = 0.99
    """Memory of the teacher (Tarvainen and Valpola 2017; the value of UA-MT, BCP and VQ-Seg)."""
    predict_with_teacher: bool = True
    """Validate and predict with the teacher's weights instead of the student's."""

    teacher: EMATeacher
    _teacher_network: nn.Module

    def followed(self) -> nn.Module:
        """Return the network whose average the teacher is; default the predicting one."""
        network: nn.Module = self.student
        return network

    def finish_networks(self) -> None:
        """Prepare the teacher as well, which starts as the student."""
        self.teacher = EMATeacher(self.followed(), self.ema_decay)
        switch_deep_supervision(self.teacher, False)
        module: Any = self.teacher.module
        self._teacher_network = self.compiled(getattr(module, "predictor", module))
        self.apply_precision(self._teacher_network)
        if self.predict_with_teacher:
            self.apply_precision(self.network)
            self._predicting = self._teacher_network
        else:
            super().finish_networks()

    @property
    def network_that_predicts(self) -> nn.Module:
        """The network whose weights go into checkpoints for prediction."""
        return unwrap(self._predicting)

    @torch.no_grad()
    def teacher_logits(self, image: Tensor) -> Tensor:
        """Return ``(B, C, *spatial)`` logits of the teacher at full resolution, no gradient."""
        return self.full_resolution(self._teacher_network(image))

    def follow(self) -> None:
        """Move the teacher towards the student."""
        self.teacher.update_parameters(self.followed())

    def extra_state(self) -> dict[str, Any]:
        """Return everything that resuming needs beyond nnU-Net's own; a method extends it."""
        return {**super().extra_state(), "teacher": self.teacher.state_dict()}

    def load_extra_state(self, state: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        """Restore what :meth:`extra_state` gave; a method extends it."""
        super().load_extra_state(state, checkpoint)
        self.teacher.load_state_dict(state["teacher"])
