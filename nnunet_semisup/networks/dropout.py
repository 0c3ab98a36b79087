"""Dropout in a network that the plans build without, and Monte-Carlo passes with it.

The plans' own ``dropout_op`` would rename keys of the state dict (``all_modules.1`` becomes
``all_modules.2``), and stock nnU-Net could not load the weights. A forward hook has no key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd


class _ChannelDropout:
    """Drop whole channels of a module's output, in training mode or while ``training`` is set.

    An object, not a closure: a deep copy of the module gets a copy of it.
    """

    def __init__(self, p: float) -> None:
        self.p = p
        self.training = False

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        drop = F.dropout3d if output.dim() == 5 else F.dropout2d
        return drop(output, self.p, module.training or self.training)


def add_dropout(network: Any, p: float, stages: Sequence[int] | None = None) -> None:
    """Drop channels of the outputs of encoder stages; keys of the state dict stay as they are.

    Whole channels, as V-Net in UA-MT (MICCAI 2019) does with ``Dropout3d`` after its deepest stage
    and its last decoder block. Here the default is the two deepest encoder stages: Bayesian SegNet
    (arXiv 1511.02680) found dropout best in the central blocks alone, and the stage
    above the deepest also reaches the decoder as a skip, past the bottleneck of a few voxels. The
    last decoder block is left alone: its output has full resolution, and one more such map would
    be kept for the backward pass.

    Args:
        network: with ``encoder.stages``, as the plans' U-Nets have. A copy made afterwards has
            dropout of its own; a compiled network that has run before does not see it (torch 2.14
            guards no hooks), so this comes before the first pass.
        p: probability of a channel to be dropped.
        stages: numbers of encoder stages, shallow to deep, negative ones from the deepest.
    """
    chosen = range(-min(2, len(network.encoder.stages)), 0) if stages is None else stages
    for stage in chosen:
        network.encoder.stages[stage].register_forward_hook(_ChannelDropout(p))


@contextmanager
def only_dropout(network: nn.Module) -> Iterator[None]:
    """Let dropout act in a network in evaluation mode, and nothing else of training mode.

    Reaches hooks of :func:`add_dropout` and dropout layers of the plans alike, also within an EMA
    teacher, which refuses training mode, and within ``torch.compile`` (one more graph is
    compiled). Contexts may be nested; an exception restores the state as well.

    Raises:
        ValueError: the network has no dropout, so all passes would be the same.
    """
    found = [*_dropouts(network)]
    if not found:
        raise ValueError("The network has no dropout; call add_dropout first.")
    before = [dropout.training for dropout in found]
    try:
        for dropout in found:
            dropout.training = True
        yield
    finally:
        for dropout, state in zip(found, before, strict=True):
            dropout.training = state


def _dropouts(network: nn.Module) -> Iterator[_DropoutNd | _ChannelDropout]:
    for module in network.modules():
        if isinstance(module, _DropoutNd):
            yield module
        for hook in module._forward_hooks.values():
            if isinstance(hook, _ChannelDropout):
                yield hook
