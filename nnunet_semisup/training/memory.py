"""The memory of a training step, found out without taking it: on tensors that have no content."""

from __future__ import annotations

import warnings
import weakref
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunet_semisup.losses.consistency import segmentation_loss
from nnunet_semisup.losses.targets import PseudoLabel
from nnunet_semisup.networks.decode import Decoded
from nnunet_semisup.networks.members import Members
from nnunet_semisup.networks.planned import PlannedNetwork
from nnunet_semisup.networks.recomputed import keeps_running_means, recompute_stages
from nnunet_semisup.networks.training_network import Outputs
from nnunet_semisup.registry import method_of


class _Contentless(FakeTensorMode):
    """Make tensors without content, which stay of one kind when a module is copied."""

    def __deepcopy__(self, memo: Any) -> _Contentless:
        return self


class Live(TorchDispatchMode):
    """Count the bytes of the tensors that are alive, and the most there were.

    Attributes:
        now: bytes in use.
        most: greatest value of ``now``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it gives."""
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        if storage in self._seen:
            return
        size = storage.nbytes()
        self._seen[storage] = size
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.now -= size


@dataclass(frozen=True)
class Step:
    """Hold what decides how much memory a step takes.

    Attributes:
        trainer: class.
        plan: its network.
        patch: voxels of a patch, one number an axis.
        labeled: labeled patches.
        unlabeled: unlabeled patches.
        again: whether activations are computed again (``recompute_activations``).
        mixed: whether convolutions are computed in 16 bits, as on a GPU.
    """

    trainer: Any
    plan: PlannedNetwork
    patch: tuple[int, ...]
    labeled: int
    unlabeled: int
    again: bool = False
    mixed: bool = True

    @property
    def can_compute_again(self) -> bool:
        """Tell whether activations may be computed again: not with batches' running means."""
        with _Contentless():
            return not keeps_running_means(training_network(self.trainer, self.plan))

    def bytes(self) -> int:
        """Return the bytes that PyTorch has in use at most, without a GPU's context.

        Counted are weights, gradients, momentum, a teacher, two batches, and a pass of each through
        the network with its members, with a loss of every output, forth and back.
        """
        with _Contentless(), Live() as live:
            network = training_network(self.trainer, self.plan)
            weights = live.now
            method = method_of(self.trainer)
            assert method is not None
            momentum, teacher = weights, weights if method.has_teacher else 0
            if self.again:
                recompute_stages(network)
            images = [
                torch.zeros(number, self.plan.input_channels, *self.patch)
                for number in (self.labeled, method.unlabeled_at_once * self.unlabeled)
            ]
            for image in images:
                self._pass(network, image)
            return momentum + teacher + live.most

    def _pass(self, network: nn.Module, image: Tensor) -> None:
        mixed = torch.autocast("cpu", torch.bfloat16) if self.mixed else nullcontext()
        with mixed:
            output = network(image)
            members = output.parts if isinstance(output, Outputs) else [output]
            losses = [_loss(member) for member in members]
        torch.stack(losses).sum().backward()


def _loss(member: Any) -> Tensor:
    logits = member.logits if isinstance(member, Decoded) else member
    logits = logits if isinstance(logits, list) else [logits]
    losses = []
    for one in logits:
        target = torch.zeros(len(one), 1, *one.shape[2:], dtype=torch.long)
        label = PseudoLabel(target, torch.ones_like(target, dtype=torch.float32))
        losses.append(segmentation_loss(one, label, regions=False))
    return torch.stack(losses).sum()


def training_network(trainer: Any, plan: PlannedNetwork) -> nn.Module:
    """Return a trainer's network with its members, without what a method puts around it."""
    with warnings.catch_warnings():
        # Of a copied parameter torch asks whether it has any content.
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor", UserWarning)
        predictor = trainer.build_network_architecture(*plan.arguments)
        others = trainer.further_members(predictor, plan)
    return Members(predictor, others, trainer.members_share_encoder) if others else predictor
