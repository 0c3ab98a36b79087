"""The base of every semi-supervised trainer, with nnU-Net's training loop as it needs it.

A method declares its networks and implements :meth:`SemiSupervisedTrainer.compute_losses`, from a
labeled and an unlabeled batch to named, already weighted loss terms. Everything else (transfer,
autocast, backward, clipping, optimizer, logging, stopping, checkpoints) is here.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_semisup.data.labeled_views import LabeledViews, MakeMap
from nnunet_semisup.data.unlabeled import UnlabeledDataset
from nnunet_semisup.errors import exit_code_two_in_commands
from nnunet_semisup.losses.schedules import sigmoid_rampup
from nnunet_semisup.networks.members import Members
from nnunet_semisup.networks.planned import PlannedNetwork
from nnunet_semisup.networks.recomputed import recompute_stages
from nnunet_semisup.networks.supervision_switch import has_deep_supervision, switch_deep_supervision
from nnunet_semisup.networks.training_network import Outputs
from nnunet_semisup.preparation.fold_cases import UnlabeledOfFold, find_unlabeled, unused_note
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled, to_device, unwrap
from nnunet_semisup.training.checkpoint import refuse_other_setting
from nnunet_semisup.training.definitions import defining_classes
from nnunet_semisup.training.inputs import Inputs
from nnunet_semisup.training.labeled import LabeledTrainer
from nnunet_semisup.training.loop import LoopTrainer
from nnunet_semisup.training.optimizers import ADAMW, adamw_with_warmup
from nnunet_semisup.training.passes import Pass
from nnunet_semisup.training.ranges import Count, Fraction, Weight
from nnunet_semisup.training.settings import Settings
from nnunet_semisup.training.streams import (
    Streams,
    refuse_cascade,
    refuse_device_augmentation,
)


class SemiSupervisedTrainer(LabeledTrainer, LoopTrainer):
    """Train as nnUNetTrainer, with a second stream of unlabeled patches.

    With the plan's network alone and the unlabeled terms weighted zero, a step is nnUNetTrainer's.
    """

    unlabeled_batch_size: Count | None = None
    """Unlabeled patches a step on each GPU; ``None``: as labeled ones (2 at least for CutMix)."""
    unlabeled_weight: Weight = 1.0
    """Greatest weight of the unlabeled terms."""
    rampup_length: Fraction = 0.4
    """Fraction of training over which that weight rises (Laine and Aila's sigmoid ramp-up)."""
    optimizer_name: Literal["sgd", "adamw"] = "sgd"
    """``sgd``: nnU-Net's. ``adamw``: with warm-up, rate 3e-4 and decay 0.05 unless they are set."""

    recompute_activations: bool = False
    """Keeps less for the backward pass and computes it again: less memory, a third more time."""

    labeled_weak: ClassVar[bool] = False
    """Whether labeled patches also come without nnU-Net's intensity augmentation."""
    labeled_maps: ClassVar[Mapping[str, MakeMap]] = {}
    """Maps that the workers make from labeled patches: name to function of target and labels."""
    members_share_encoder: ClassVar[bool] = False
    """Whether :meth:`further_members` are decoders on one encoder, or networks of their own."""

    _trained: Any = None
    _predicting: Any = None

    def check_inputs(self, inputs: Inputs) -> None:
        """Refuse a cascade's second stage, and maps of labels that the device augments."""
        super().check_inputs(inputs)
        refuse_cascade(inputs)
        refuse_device_augmentation(inputs, self.labeled_maps)

    def check_cases(self, inputs: Inputs) -> None:
        """Refuse unfit unlabeled cases, unless for ``--val``."""
        super().check_cases(inputs)
        if not inputs.validates_only:
            self.unlabeled_cases = find_unlabeled(
                inputs.dataset_folder, inputs.plans_manager, inputs.configuration, inputs.fold
            )

    def use_settings(self, settings: Settings) -> None:
        """Set them, where AdamW has a rate and a weight decay of its own."""
        if settings.values["optimizer_name"] == "adamw":
            settings = settings.with_defaults(ADAMW)
        super().use_settings(settings)

    # The parts that a method fills in.

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        """Yield groups of named, weighted scalar loss terms.

        Each group is propagated back before the next is computed, so that their activations are
        never in memory at once. Names starting with ``_`` are only logged, without gradient.
        """
        raise NotImplementedError

    @classmethod
    def extend_network(cls, network: nn.Module, plan: PlannedNetwork) -> nn.Module:
        """Change the network that predicts; a method calls ``super()``'s first. Default: not."""
        return network

    @classmethod
    def further_members(cls, predictor: Any, plan: PlannedNetwork) -> list[nn.Module]:
        """Build what learns beside the predicting network, in prediction too; default none."""
        return []

    def build_training_network(self, predictor: nn.Module) -> nn.Module:
        """Wrap the predicting network with what only training needs, as ``.predictor``."""
        others = self.further_members(predictor, self.planned_network)
        return Members(predictor, others, self.members_share_encoder) if others else predictor

    def after_step(self) -> None:
        """Act once a step, after the optimizer (and the teacher, where there is one)."""

    def end_epoch(self, unlabeled: Unlabeled) -> dict[str, float]:
        """Return diagnostics of the epoch, given its last unlabeled batch, without gradients."""
        return {}

    # What a method can use.

    @property
    def current_unlabeled_weight(self) -> float:
        """``unlabeled_weight`` times its ramp at this step."""
        return self.unlabeled_weight * sigmoid_rampup(self.progress, self.rampup_length)

    @property
    def regions(self) -> bool:
        """True where outputs are overlapping regions (sigmoid) rather than labels (softmax)."""
        return bool(self.label_manager.has_regions)

    @property
    def region_values(self) -> list[tuple[int, ...]] | None:
        """Values of the labels in each region; ``None`` where classes do not overlap."""
        if not self.regions:
            return None
        found = self.label_manager.foreground_regions
        return [tuple(r) if isinstance(r, (list, tuple)) else (r,) for r in found]

    def student_pass(
        self, image: Tensor, name: str, valid: Tensor | None = None, **how: Any
    ) -> Pass:
        """Run the network in training, once.

        Args:
            image: ``(B, C, *spatial)``.
            name: of the pass, in the names of terms that it brings.
            valid: ``(B, 1, *spatial)`` bool, false in padding.
            how: for the training network's ``forward``.
        """
        output = self.network(image, **how)
        if isinstance(output, Outputs):
            return Pass(output.logits, output.parts, {}, dict(output.guests))
        return Pass(output, None, {}, {})

    def labeled_terms(self, labeled: Labeled) -> Terms:
        """Return the terms of labeled patches: their loss, and what the pass brings."""
        return self.supervised_terms(self.student_pass(labeled.image, "labeled"), labeled)

    def supervised_terms(self, seen: Pass, labeled: Labeled) -> Terms:
        """Return the loss of each member on labeled patches, and what the pass brings."""
        known = labeled.target, labeled.gaps
        losses = [self.supervised_loss(one.logits, *known) for one in seen.members]
        if len(losses) == 1:
            return {"supervised": losses[0], **seen.terms}
        named = {f"supervised_{number}": loss for number, loss in enumerate(losses, 1)}
        return {**named, **seen.terms}

    def full_resolution(self, output: Any) -> Tensor:
        """Return the output at the patch's resolution."""
        return output[0] if isinstance(output, (list, tuple)) else output

    @property
    def training_network(self) -> Any:
        """The student with what only training needs, without what distributes or compiles it."""
        return unwrap(self.network if self._trained is None else self._trained)

    @property
    def student(self) -> Any:
        """The student's predicting network."""
        return getattr(self.training_network, "predictor", self.training_network)

    @property
    def network_that_predicts(self) -> nn.Module:
        """The network whose weights go into checkpoints for prediction."""
        return self.student

    # Networks.

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """Build the network that predicts; methods change it in :meth:`extend_network`."""
        plan = PlannedNetwork(
            plans_manager,
            configuration_manager,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
        )
        return cls.extend_network(super().build_network_architecture(*plan.arguments), plan)

    @classmethod
    def predicts_with_plan_network(cls) -> bool:
        """Tell whether neither the class nor a base of it changes the plan's network."""
        builders = defining_classes(cls, "build_network_architecture")
        extend = defining_classes(cls, "extend_network")
        own = [SemiSupervisedTrainer]
        return builders == [*own, nnUNetTrainer] and extend == own

    @property
    def planned_network(self) -> PlannedNetwork:
        """The plan of the network in training."""
        managers = self.plans_manager, self.configuration_manager
        sizes = self.num_input_channels, self.label_manager.num_segmentation_heads
        return PlannedNetwork(*managers, *sizes, self.enable_deep_supervision)

    @exit_code_two_in_commands()
    def initialize(self) -> None:
        """Build as nnU-Net does, with the training network around the predicting one."""
        assert self.seed is not None
        seed = self.seed + self.local_rank
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(self.seed)
        build = type(self).build_network_architecture

        @functools.wraps(build)
        def build_wrapped(*args: Any, **kwargs: Any) -> nn.Module:
            return self.build_training_network(build(*args, **kwargs))

        # Prediction calls the class's function, which must not build what only training needs.
        self.__dict__["build_network_architecture"] = build_wrapped
        try:
            super().initialize()
        finally:
            del self.__dict__["build_network_architecture"]
        if self.is_ddp:
            devices = [self.device.index] if self.device.type == "cuda" else None
            self.network = DistributedDataParallel(
                self.network.module, device_ids=devices, find_unused_parameters=True
            )
        self._trained = self.network
        self.apply_memory_order(self.network)
        self.finish_networks()
        if self.recompute_activations:
            recompute_stages(self.training_network)
        torch.manual_seed(seed)

    def finish_networks(self) -> None:
        """Prepare which network validates, and precision; called once they are all built."""
        self.apply_precision(self.network)
        self._predicting = self.network
        if self.student is not self.training_network:
            self._predicting = self.compiled(self.student)
            self.apply_precision(self.student)

    def compiled(self, network: nn.Module) -> nn.Module:
        """Return the network as nnU-Net compiles it, where it compiles at all."""
        return cast(nn.Module, torch.compile(network)) if self._do_i_compile() else network

    def optimizer_of_network(self) -> Any:
        """Make optimizer and schedule of the network: nnU-Net's, or AdamW."""
        if self.optimizer_name == "adamw":
            return adamw_with_warmup(
                self.network.parameters(), self.initial_lr, self.weight_decay, self.num_epochs
            )
        return super().optimizer_of_network()

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Set it on every decoder in training."""
        switch_deep_supervision(self.training_network, enabled)

    @contextmanager
    def predicting(self, deep_supervision: bool) -> Iterator[None]:
        """Make ``self.network`` the network whose weights predict, inside."""
        before = has_deep_supervision(self._predicting)
        training, self.network = self.network, self._predicting
        switch_deep_supervision(self._predicting, deep_supervision)
        try:
            yield
        finally:
            self.network = training
            switch_deep_supervision(self._predicting, before)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validate by nnU-Net's sliding window, with the weights that predict."""
        with self.predicting(deep_supervision=False):
            if isinstance(self.network, DistributedDataParallel):
                # Its buffers are exchanged at each pass, which ranks without cases never make.
                self.network = self.network.module
            super().perform_actual_validation(save_probabilities)

    # Streams.

    @property
    def unlabeled_patches(self) -> int:
        """Unlabeled patches a step on this rank."""
        return self.unlabeled_batch_size or self.batch_size

    @cached_property
    def unlabeled_cases(self) -> UnlabeledOfFold:
        """Unlabeled cases of this fold, as they were checked before the training began."""
        folder, fold = self.preprocessed_dataset_folder_base, self.fold
        return find_unlabeled(folder, self.plans_manager, self.configuration_name, fold)

    def labeled_views(self) -> LabeledViews:
        """Return what is made beside nnU-Net's view, as the class says."""
        return LabeledViews(self.labeled_weak, self.labeled_maps, self.label_manager)

    def unlabeled_loader(self, labeled: Any, streams: Streams) -> Any:
        """Return the loader of the unlabeled patches, which begin as large as the labeled ones."""
        folders, unused = self.unlabeled_cases
        self.print_to_log_file(f"{len(labeled.indices)} labeled and {len(folders)} unlabeled cases")
        if note := unused_note(unused, self.plans_manager, self.configuration_name):
            self.print_to_log_file(f"WARNING: {note}")
        return streams.unlabeled(self.unlabeled_scans(folders), self.unlabeled_patches)

    def unlabeled_scans(self, folders: dict[str, str]) -> UnlabeledDataset:
        """Return what the unlabeled patches are cut from.

        Args:
            folders: case id to the folder of the preprocessed case.
        """
        return UnlabeledDataset(folders)

    def configuration(self) -> dict[str, Any]:
        """Return the record of the run, with its unlabeled cases."""
        number, cases = self.unlabeled_patches, sorted(self.unlabeled_cases.folders)
        own = {"unlabeled_batch_size": number, "unlabeled_cases": cases}
        return {**super().configuration(), **own}

    # A step.

    def diagnostics(self, batch: dict[str, Any]) -> dict[str, float]:
        """Return :meth:`end_epoch` of the batch's unlabeled part."""
        with torch.no_grad(), self._autocast():
            return self.end_epoch(self.to_device(batch)[1])

    def train_step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Make one optimizer step; the returned loss stays on the device."""
        labeled, unlabeled = self.to_device(batch)
        total, terms = self.optimize(iter(self.compute_losses(labeled, unlabeled)))
        self.follow()
        self.after_step()
        self.monitor.add({"loss": total, **terms})
        return {"loss": total}

    def follow(self) -> None:
        """Move a teacher towards the student; here there is none."""

    def to_device(self, batch: dict[str, Any]) -> tuple[Labeled, Unlabeled]:
        """Return a batch of the loader as both parts of a step, on the device."""
        return to_device(batch, self.device, self.masked_channels, self.partial_labels)

    @cached_property
    def masked_channels(self) -> Tensor | None:
        """``(1, C, 1, ...)`` bool, the channels that nnU-Net sets to 0 where it crops; or None."""
        masked = torch.tensor(self.configuration_manager.use_mask_for_norm, device=self.device)
        shape = [1, -1, *[1] * len(self.configuration_manager.patch_size)]
        return masked.reshape(shape) if any(self.configuration_manager.use_mask_for_norm) else None

    # Checkpoints.

    def load_extra_state(self, state: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        """Restore what :meth:`extra_state` gave; a method extends it."""
        refuse_other_setting(state, "optimizer_name", self.optimizer_name)
        super().load_extra_state(state, checkpoint)
