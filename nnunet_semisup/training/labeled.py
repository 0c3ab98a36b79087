"""The part of a training that needs labels alone: their loss, what learns by it, and a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from nnunet_semisup.errors import UserError
from nnunet_semisup.losses.deep_supervision import deep_supervised
from nnunet_semisup.losses.lomix import LoMix, Operator, Weights, number_mixed
from nnunet_semisup.losses.partial import Gaps
from nnunet_semisup.losses.targets import PseudoLabel
from nnunet_semisup.networks.training_network import TrainingNetwork
from nnunet_semisup.training.batches import Terms
from nnunet_semisup.training.checkpoint import refuse_other_setting
from nnunet_semisup.training.common import CommonTrainer
from nnunet_semisup.training.inputs import Inputs
from nnunet_semisup.training.optimizers import clip_and_step, clip_groups
from nnunet_semisup.training.passes import propagate

LabeledLoss = Literal["nnunet", "lomix"]


class LabeledTrainer(CommonTrainer):
    """Train on labels by nnU-Net's loss or LoMix's, what is in the network and beside it."""

    labeled_loss: LabeledLoss = "nnunet"
    """Loss of labeled patches: nnU-Net's, or ``lomix``: also of mixtures of the outputs (LoMix)."""
    lomix_weights: Weights = "fixed"
    """Weights of ``lomix``: ``fixed`` by resolution, or learned: ``log``, ``softplus`` (paper)."""

    lomix_operators: ClassVar[tuple[Operator, ...]] = ("add", "cat", "awf")
    """How ``lomix`` mixes outputs; the paper also multiplies them: ``mult``."""

    _outside: nn.ModuleDict
    _clipped: list[list[nn.Parameter]] | None = None

    def check_inputs(self, inputs: Inputs) -> None:
        """Refuse ``lomix`` where there are no two outputs that nnU-Net supervises."""
        super().check_inputs(inputs)
        if inputs.settings.values["labeled_loss"] == "lomix" and not inputs.validates_only:
            refuse_nothing_to_mix(inputs)

    # What is trained.

    def trained_outside(self) -> nn.ModuleDict:
        """Make what is trained beside the network: prompts, weights of losses; here LoMix's.

        The base moves, optimizes and saves it, and averages its gradient over processes.
        """
        if self.labeled_loss == "nnunet":
            return nn.ModuleDict()
        dimensions = len(self.configuration_manager.patch_size)
        level_weights = self._build_loss().weight_factors
        channels = self.label_manager.num_segmentation_heads
        rest = self.lomix_weights, self.lomix_operators
        return nn.ModuleDict({"lomix": LoMix(level_weights, channels, dimensions, *rest)})

    def configure_optimizers(self) -> Any:
        """Make optimizer and schedule, with what is trained outside of the network."""
        self._outside = self.trained_outside().to(self.device)
        self.ranks.share_first(self._outside)
        optimizer, schedule = self.optimizer_of_network()
        if outside := list(self._outside.parameters()):
            optimizer.add_param_group({"params": outside})
        return optimizer, schedule

    def optimizer_of_network(self) -> Any:
        """Make optimizer and schedule of the network; here nnU-Net's."""
        return super().configure_optimizers()

    # Losses.

    def supervised_loss(self, output: Any, target: Any, gaps: Gaps | None = None) -> Tensor:
        """Return the loss of an output on labeled patches, under deep supervision of a list.

        All members of a network share LoMix's convolutions and weights.

        Args:
            output: logits.
            target: nnU-Net's.
            gaps: what the target leaves open; ``None``: nothing.
        """
        if "lomix" not in self._outside:
            return self.loss(output if gaps is None else gaps.known_logits(output), target)
        loss = self.loss.loss

        def loss_at(logits: Tensor, level: int) -> Tensor:
            # Mixed before: what stands for "never" must not go through a convolution.
            known = logits if gaps is None else gaps.at(level).known_logits(logits)
            return cast(Tensor, loss(known, target[level]))

        # Never below -1: cross entropy less the Dice.
        return self._mixing(output, loss_at, -1.0)

    def loss_of_annotations(
        self, loss: Callable[[Tensor, PseudoLabel], Tensor], output: Any, label: PseudoLabel
    ) -> Tensor:
        """Return a loss of annotated voxels in images that a method made, as ``labeled_loss`` says.

        Args:
            loss: of ``(B, C, *spatial)`` logits and a label of their size; never negative.
            output: logits, a list of them from full resolution downwards under deep supervision.
            label: at full resolution; each output is given :meth:`PseudoLabel.resized`.
        """
        if "lomix" not in self._outside:
            return deep_supervised(loss, output, label, self.deep_supervision_weights)
        labels = [label.resized(logits.shape[2:]) for logits in output]
        return self._mixing(output, lambda logits, level: loss(logits, labels[level]), 0.0)

    def _mixing(
        self, output: Any, loss_at: Callable[[Tensor, int], Tensor], lowest: float
    ) -> Tensor:
        return cast(Tensor, self._outside["lomix"](output, loss_at, lowest))

    @property
    def deep_supervision_weights(self) -> Sequence[float]:
        """Weights of a decoder's outputs in nnU-Net's loss, full resolution first."""
        return getattr(self.loss, "weight_factors", (1.0,))

    # A step.

    def after_backward(self) -> None:
        """Act once a step, when the gradients of all terms are there; default not."""

    def optimize(self, groups: Iterator[Terms]) -> tuple[Tensor, Terms]:
        """Make one optimizer step by groups of terms, computed in mixed precision on a GPU.

        Returns:
            The sum of all losses, and every term under its name in the log; without gradient.
        """
        self.optimizer.zero_grad(set_to_none=True)
        zero = torch.zeros((), device=self.device)
        result = propagate(groups, self._autocast, self.grad_scaler, zero)
        self.after_backward()
        self.ranks.average_gradients(self._outside.parameters())
        if self._clipped is None:
            self._clipped = self.clipped_apart()
        clip_and_step(self.optimizer, self.grad_scaler, self._clipped)
        return result

    def _autocast(self) -> Any:
        return torch.autocast("cuda") if self.device.type == "cuda" else nullcontext()

    def clipped_apart(self) -> list[list[nn.Parameter]]:
        """Return the parameters of each network, and of each part trained outside."""
        network = self.training_network
        networks = network.networks() if isinstance(network, TrainingNetwork) else [network]
        return clip_groups([*networks, *self._outside.values()], self.optimizer)

    # Checkpoints.

    def extra_state(self) -> dict[str, Any]:
        """Return everything that resuming needs beyond nnU-Net's own; a method extends it."""
        return {**super().extra_state(), "outside": self._outside.state_dict()}

    def load_extra_state(self, state: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        """Restore what :meth:`extra_state` gave; a method extends it."""
        refuse_other_setting(state, "labeled_loss", self.labeled_loss, "nnunet")
        if self.labeled_loss == "lomix":
            refuse_other_setting(state, "lomix_weights", self.lomix_weights)
        super().load_extra_state(state, checkpoint)
        self._outside.load_state_dict(state["outside"])


def refuse_nothing_to_mix(inputs: Inputs) -> None:
    """Refuse a training with LoMix whose network has no two outputs that nnU-Net supervises.

    Raises:
        UserError: deep supervision is off, or the network has fewer than four stages.
    """
    strides = inputs.configuration_manager.network_arch_init_kwargs.get("strides", ())
    outputs = len(strides) - 1
    if not inputs.settings.values.get("enable_deep_supervision", True):
        fault = "enable_deep_supervision=False leaves the network one. Leave that away"
    elif strides and number_mixed(outputs, len(strides[0])) < 2:
        fault = (
            f"the network of {inputs.configuration} has {max(outputs, 0)}, of which nnU-Net leaves "
            "the coarsest out. Plan for larger patches"
        )
    else:
        return
    raise UserError(
        f"{inputs.trainer}, labeled_loss=lomix: it mixes two outputs or more that nnU-Net "
        f"supervises, and {fault}, or train with labeled_loss=nnunet."
    )
