"""Trainers with a teacher: the moving average of the student's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.losses.targets import PseudoLabel, labels_of_target
from nnunet_semisup.networks.supervision_switch import switch_deep_supervision
from nnunet_semisup.training.batches import Labeled, Terms, unwrap
from nnunet_semisup.training.ema import EMATeacher
from nnunet_semisup.training.passes import Pass
from nnunet_semisup.training.ranges import Fraction
from nnunet_semisup.training.semi_supervised import SemiSupervisedTrainer


class TeacherTrainer(SemiSupervisedTrainer):
    """Train with an EMA teacher, which predicts unless told otherwise."""

    ema_decay: Fraction = 0.99
    """Memory of the teacher (Tarvainen and Valpola 2017; the value of UA-MT, BCP and VQ-Seg)."""
    predict_with_teacher: bool = True
    """Validate and predict with the teacher's weights instead of the student's."""
    fill_confidence: Fraction = 0.95
    """Probability above which the teacher fills classes that a labeled case has no labels of."""
    fill_start: Fraction = 0.4
    """Fraction of training from which on it does."""

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

    def weights_replaced(self) -> None:
        """Let the teacher start as the student anew."""
        super().weights_replaced()
        self.teacher.module.load_state_dict(self.followed().state_dict())

    @property
    def network_that_predicts(self) -> nn.Module:
        """The network whose weights go into checkpoints for prediction."""
        return unwrap(self._predicting)

    @torch.no_grad()
    def teacher_logits(self, image: Tensor) -> Tensor:
        """Return ``(B, C, *spatial)`` logits of the teacher at full resolution, no gradient."""
        return self.full_resolution(self._teacher_network(image))

    def with_filled_gaps(self, labeled: Labeled) -> Labeled:
        """Return labeled patches with what the teacher is sure of where labels leave it open."""
        if labeled.gaps is None or not self.passed(self.fill_start):
            return labeled
        p = probabilities(self.teacher_logits(labeled.image), self.regions)
        target, gaps = labeled.gaps.filled(labeled.target, p, self.fill_confidence)
        return labeled._replace(target=target, gaps=gaps)

    def labels_of(self, labeled: Labeled) -> PseudoLabel:
        """Return labels at full resolution, with weight 0 where they are to be ignored."""
        return labels_of_target(labeled.target, self.label_manager.ignore_label, self.regions)

    def known_labels(self, labeled: Labeled) -> PseudoLabel:
        """Return labels at full resolution, with weight 0 also where they leave a class open."""
        label = self.labels_of(labeled)
        if labeled.gaps is None:
            return label
        return label.within(~self.full_resolution(labeled.gaps.unknown))

    def supervised_terms(self, seen: Pass, labeled: Labeled) -> Terms:
        """Return the loss of each member on labeled patches, gaps filled by the teacher."""
        return super().supervised_terms(seen, self.with_filled_gaps(labeled))

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
