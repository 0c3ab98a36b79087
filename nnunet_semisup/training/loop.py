"""The base of every semi-supervised trainer, with nnU-Net's training loop as it needs it.

A method declares its networks and implements :meth:`SemiSupervisedTrainer.compute_losses`, from a
labeled and an unlabeled batch to named, already weighted loss terms. Everything else (transfer,
autocast, backward, clipping, optimizer, teacher, logging, stopping, checkpoints) is here.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from contextlib import nullcontext
from os.path import join
from typing import Any, ClassVar, cast

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import save_json
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_semisup import __version__
from nnunet_semisup.errors import exit_code_two_in_commands
from nnunet_semisup.losses.schedules import sigmoid_rampup
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled, unwrap
from nnunet_semisup.training.checkpoint import Checkpoints, remove_leftovers, set_aside
from nnunet_semisup.training.compute_settings import ComputeSettings
from nnunet_semisup.training.data_streams import DataStreams, fold_folder
from nnunet_semisup.training.ema import EMATeacher
from nnunet_semisup.training.hyperparameters import (
    CONFIG_NAME,
    defaults,
    read_overrides,
    read_recorded,
    require_range,
)
from nnunet_semisup.training.interruption import Interruption
from nnunet_semisup.training.monitor import Monitor
from nnunet_semisup.training.moving_average import MovingAverage
from nnunet_semisup.training.predicting import Predicting
from nnunet_semisup.training.preflight import check_before_training
from nnunet_semisup.training.run_record import Records
from nnunet_semisup.training.stopping import Stopping
from nnunet_semisup.training.validation import Validation, set_aside_validation
from nnunet_semisup.training.window_precision import WindowPrecision


class SemiSupervisedTrainer(
    Checkpoints,
    Stopping,
    DataStreams,
    MovingAverage,
    Predicting,
    Validation,
    WindowPrecision,
    Records,
    ComputeSettings,
    nnUNetTrainer,
):
    """nnUNetTrainer with a second stream of unlabeled patches and an optional EMA teacher.

    With the unlabeled terms weighted zero, a step is nnUNetTrainer's step.
    """

    unlabeled_batch_size: int | None = None
    """Unlabeled patches a step on each GPU; ``None``: as labeled ones (2 at least for CutMix)."""
    seed: int | None = None
    """Seeds weights, patches and perturbations; ``None`` draws one and records it."""
    ema_decay: float = 0.99
    """Memory of the teacher (Tarvainen and Valpola 2017; the value of UA-MT, BCP and VQ-Seg)."""
    predict_with_teacher: bool = True
    """Validate and predict with the teacher's weights instead of the student's."""
    unlabeled_weight: float = 1.0
    """Greatest weight of the unlabeled terms."""
    rampup_length: float = 0.4
    """Fraction of training over which that weight rises (Laine and Aila's sigmoid ramp-up)."""
    use_teacher: ClassVar[bool] = True
    network: Any
    _trained: Any = None

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        with exit_code_two_in_commands():
            self.overrides = read_overrides(type(self))
            given = dict(self.overrides)
            self.continues = bool(plans.get("continue_training"))
            if self.continues:
                folder = fold_folder(type(self).__name__, plans, configuration, fold)
                given = {**read_recorded(type(self), folder), **given}
            values = {**defaults(type(self)), **given}
            self.check_hyperparameters(values)
            deep_supervision = values.get("enable_deep_supervision", True)
            check_before_training(
                type(self).__name__, plans, configuration, fold, dataset_json, deep_supervision
            )
            self.check_inputs(values, plans, configuration, fold, dataset_json)
        super().__init__(plans, configuration, fold, dataset_json, device)
        for name, value in values.items():
            setattr(self, name, value)
        self.set_threads()
        self.settle_seed()
        self.teacher: EMATeacher | None = None
        self.iteration = 0
        self.monitor = Monitor()
        self.interruption = Interruption()
        self._train_losses: list[Tensor] = []
        self._resume_random: dict[str, Any] | None = None

    @classmethod
    def check_hyperparameters(cls, values: dict[str, Any]) -> None:
        """Refuses values outside their range; methods extend it.

        Raises:
            UserError: naming the hyper-parameter, its value and its range.
        """
        if cls.use_teacher:
            require_range(values, "ema_decay", 0.0, 1.0)
        require_range(values, "rampup_length", 0.0, 1.0)
        require_range(values, "unlabeled_weight", 0.0, float("inf"))

    @classmethod
    def check_inputs(
        cls,
        values: dict[str, Any],
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
    ) -> None:
        """Refuses what training could not use, before anything is written; methods extend it.

        Args:
            values: hyper-parameters.
            plans: as nnU-Net's constructor gets them, like the others.
            configuration: its name.
            fold: number or ``"all"``.
            dataset_json: content of ``dataset.json``.

        Raises:
            UserError: what is missing and how to provide it.
        """
        cls.check_unlabeled(plans, configuration, fold, dataset_json)

    # The parts that a method fills in.

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        """Yields groups of named, weighted scalar loss terms.

        Each group is propagated back before the next is computed, so that their activations are
        never in memory at once. Names starting with ``_`` are only logged, without gradient.
        """
        raise NotImplementedError

    def build_training_network(self, predictor: nn.Module) -> nn.Module:
        """Wraps the predicting network with what only training needs, as ``.predictor``."""
        return predictor

    def after_backward(self) -> None:
        """Called once a step, when the gradients of all terms are there; default nothing."""

    def end_epoch(self, unlabeled: Unlabeled) -> dict[str, float]:
        """Diagnostics of the epoch, given its last unlabeled batch, no gradients; default none."""
        return {}

    # What a method can use.

    @property
    def progress(self) -> float:
        """Fraction of the training steps done, in [0, 1)."""
        step = self.current_epoch * self.num_iterations_per_epoch + self.iteration
        return step / (self.num_epochs * self.num_iterations_per_epoch)

    @property
    def current_unlabeled_weight(self) -> float:
        """``unlabeled_weight`` times its ramp at this step."""
        return self.unlabeled_weight * sigmoid_rampup(self.progress, self.rampup_length)

    @property
    def regions(self) -> bool:
        """Whether outputs are overlapping regions (sigmoid) rather than labels (softmax)."""
        return bool(self.label_manager.has_regions)

    @property
    def training_network(self) -> Any:
        """What :meth:`build_training_network` gave: the student with what only training needs."""
        return unwrap(self.network if self._trained is None else self._trained)

    @property
    def student(self) -> Any:
        """The student's predicting network."""
        return getattr(self.training_network, "predictor", self.training_network)

    def supervised_loss(self, output: Any, target: Any) -> Tensor:
        """nnU-Net's own loss on the labeled batch."""
        return self.loss(output, target)

    # nnU-Net's life cycle.

    @exit_code_two_in_commands()
    def initialize(self) -> None:
        """As nnU-Net, with the training network around the predicting one, and the teacher."""
        assert self.seed is not None
        seed = self.seed + self.local_rank
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(self.seed)
        build: Any = type(self).build_network_architecture

        @functools.wraps(build)
        def build_wrapped(*args: Any, **kwargs: Any) -> nn.Module:
            return self.build_training_network(build(*args, **kwargs))

        self.__dict__["build_network_architecture"] = build_wrapped
        try:
            super().initialize()
        finally:
            del self.__dict__["build_network_architecture"]
        if self.is_ddp:
            devices = [self.local_rank] if self.device.type == "cuda" else None
            self.network = DistributedDataParallel(
                self.network.module, device_ids=devices, find_unused_parameters=True
            )
        self._trained = self.network
        self.set_memory_order(self.network)
        self._masked_channels = self.masked_channels()
        self._teacher_network: nn.Module | None = None
        if self.use_teacher:
            self.teacher = EMATeacher(self.student, self.ema_decay)
            self._teacher_network = self.teacher.module
            if self._do_i_compile():
                self._teacher_network = cast(nn.Module, torch.compile(self.teacher.module))
        self.set_precision(self.network)
        if self._teacher_network is not None:
            self.set_precision(self._teacher_network)
        torch.manual_seed(seed)

    @exit_code_two_in_commands()
    def on_train_start(self) -> None:
        """As nnU-Net; also records the configuration and, when resuming, the random states."""
        super().on_train_start()
        if self.local_rank == 0:
            if self._resume_random is None:
                set_aside_validation(self.output_folder, self.print_to_log_file)
                if not self.disable_checkpointing:
                    set_aside(self.output_folder, self.print_to_log_file)
            remove_leftovers(self.output_folder)
            save_json(self.configuration(), join(self.output_folder, CONFIG_NAME))
        self.resume_random_states()

    def configuration(self) -> dict[str, Any]:
        """What was used: trainer, versions, hyper-parameters, seed, unlabeled cases."""
        return {
            "trainer": type(self).__name__,
            "nnunet_semisup": __version__,
            "hyperparameters": self.hyperparameters(),
            "batch_size": self.batch_size,
            "unlabeled_batch_size": self.unlabeled_patches,
            "unlabeled_cases": sorted(self.unlabeled_folders),
        }

    def run_training(self) -> None:
        """nnU-Net's loop, resumable within an epoch and stoppable between two steps."""
        with self.interruption:
            try:
                self.on_train_start()
                while self.current_epoch < self.num_epochs:
                    self._run_epoch()
                self.on_train_end()
            except BaseException:
                self.stop_workers()
                raise
        number = self.interruption.signal_number
        if number is not None:
            self.print_to_log_file("Stopped after the last epoch; validate with --val")
            raise SystemExit(128 + number)

    def _run_epoch(self) -> None:
        self.on_epoch_start()
        self.on_train_epoch_start()
        unlabeled = None
        while self.iteration < self.num_iterations_per_epoch:
            if number := self.asked_to_stop():
                self.stop(number)
            batch = next(self.dataloader_train)
            self._train_losses.append(self.train_step(batch)["loss"])
            self.iteration += 1
            unlabeled = batch
        self._finish_train_epoch(unlabeled)
        with torch.no_grad(), self.predicting(self.enable_deep_supervision):
            self.on_validation_epoch_start()
            outputs = []
            for _ in range(self.num_val_iterations_per_epoch):
                if self.asked_to_stop():
                    break
                outputs.append(self.validation_step(next(self.dataloader_val)))
        if number := self.asked_to_stop():
            self.stop(number)
        self.on_validation_epoch_end(outputs)
        self.iteration, self._train_losses = 0, []
        self.on_epoch_end()
        if self.current_epoch < self.num_epochs and (number := self.asked_to_stop()):
            self.stop(number)

    def _finish_train_epoch(self, batch: dict[str, Any] | None) -> None:
        losses = torch.stack(self._train_losses).float().cpu().numpy()
        self.on_train_epoch_end([{"loss": loss} for loss in losses])
        if any(row["epoch"] == self.current_epoch for row in self.monitor.rows):
            return
        extra: dict[str, float] = {}
        if batch is not None and not self.has_diverged():
            with torch.no_grad(), self._autocast():
                extra = self.end_epoch(self._to_device(batch)[1])
        self.monitor.finish_epoch(self.current_epoch, extra)
        if self.local_rank == 0:
            self.monitor.write(self.output_folder)
        self.refuse_broken_losses(losses)
        self.refuse_broken_weights()

    def broken_terms(self) -> list[str]:
        """Names of the loss terms and diagnostics that are NaN or Inf in the last epoch."""
        last = self.monitor.rows[-1] if self.monitor.rows else {}
        return [name for name, value in last.items() if not np.isfinite(value)]

    def on_train_end(self) -> None:
        """As nnU-Net, once the epochs are done."""
        super().on_train_end()
        if self.local_rank == 0:
            self.monitor.write(self.output_folder)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """One optimizer step; the returned loss stays on the device."""
        labeled, unlabeled = self._to_device(batch)
        self.optimizer.zero_grad(set_to_none=True)
        logged: Terms = {}
        total = torch.zeros((), device=self.device)
        groups = iter(self.compute_losses(labeled, unlabeled))
        while True:
            with self._autocast():
                terms = next(groups, None)
            if terms is None:
                break
            losses = {name: term for name, term in terms.items() if not name.startswith("_")}
            loss = sum(losses.values(), start=torch.zeros((), device=self.device))
            if loss.requires_grad:
                self._backward(loss)
            total = total + loss.detach()
            logged.update({name.lstrip("_"): term.detach() for name, term in terms.items()})
        self.after_backward()
        self._optimizer_step()
        if self.teacher is not None:
            self.teacher.update_parameters(self.student)
        self.monitor.add({"loss": total, **logged})
        return {"loss": total}

    def _to_device(self, batch: dict[str, Any]) -> tuple[Labeled, Unlabeled]:
        def move(value: Any) -> Any:
            if isinstance(value, list):
                return [move(v) for v in value]
            return value.to(self.device, non_blocking=True)

        labeled = Labeled(move(batch["data"]), move(batch["target"]))
        valid = move(batch["unlabeled_valid"])
        masked = None if self._masked_channels is None else ~valid & self._masked_channels
        return labeled, Unlabeled(move(batch["unlabeled"]), valid, masked)

    def _autocast(self) -> Any:
        return torch.autocast("cuda") if self.device.type == "cuda" else nullcontext()

    def _backward(self, loss: Tensor) -> None:
        (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()

    def _optimizer_step(self) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.grad_scaler is None:
            nn.utils.clip_grad_norm_(parameters, 12)
            self.optimizer.step()
            return
        self.grad_scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(parameters, 12)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
