"""The course of quantizers over a training: warm-up, fits of the codes, calibration of swaps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnunet_semisup.losses.schedules import linear_rampup
from nnunet_semisup.networks.codebook_fit import moments


class QuantizerWarmup:
    """Let quantized features replace continuous ones, and fit the codes meanwhile.

    Neither is undone where a continued run has more epochs, of which it has done a smaller
    fraction. A fit needs eigenvalues, for which the host waits; no other step does.

    Args:
        length: fraction of training over which quantized features replace continuous ones.
        every: steps between two fits, and between two calibrations.
        fit: whether codes are fitted to the tokens in closed form meanwhile.
        perplexity: effective number of codes that a code may turn into; ``None`` calibrates
            nothing.

    Attributes:
        mix: share of the quantized features, in [0, 1].
    """

    def __init__(self, length: float, every: int, fit: bool, perplexity: float | None) -> None:
        self.length = length
        self.every = every
        self.fit = fit
        self.perplexity = perplexity
        self.mix = 0.0

    def update(self, network: Any, image: Tensor, step: int, progress: float) -> None:
        """Set the mix and, where it is due, fit and calibrate.

        Args:
            network: with ``tokens`` and ``quantizers``.
            image: ``(B, C, *spatial)`` whose tokens the codes are fitted to.
            step: number of the step.
            progress: fraction of training done.
        """
        before = self.mix
        self.mix = max(before, linear_rampup(progress, self.length))
        due = step % self.every == 0
        if due and self.fit and before < 1 and progress <= self.length:
            with torch.no_grad():
                stages = network.tokens(image)
            # torch before 2.10 would keep the weights' casts of this pass, which have no gradient.
            torch.clear_autocast_cache()
            for quantizer, tokens in zip(network.quantizers, stages, strict=True):
                quantizer.fit(*moments(tokens))
        for quantizer in network.quantizers:
            quantizer.mix.fill_(self.mix)
            if due and self.perplexity is not None:
                quantizer.calibrate(self.perplexity)
