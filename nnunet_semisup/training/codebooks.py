"""Diagnostics of codebooks after each epoch: numbers and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.evaluation.codebook_figures import plot_code_maps, plot_evolution
from nnunet_semisup.losses.activation import hard_labels, probabilities
from nnunet_semisup.networks.quantizer import Quantized, VectorQuantizer
from nnunet_semisup.training.batches import Unlabeled
from nnunet_semisup.training.monitor import default_style

SENSITIVE = 0.01
"""Mean total variation on the foreground below which swaps hardly reach the output."""


def foreground(probs: Tensor, regions: bool) -> Tensor:
    """Return ``(B, *spatial)`` bool, from probabilities ``(B, C, *spatial)``."""
    return (hard_labels(probs, regions) > 0).any(1)


@dataclass(frozen=True)
class Epoch:
    """Hold what diagnostics need to know of the epoch that ends.

    Attributes:
        number: of the epoch, from 0.
        last: number of the last one.
        network: in training, with codebooks; not distributed, so that it waits for no other rank.
        regions: sigmoid channels instead of softmax.
        epsilon: share of tokens whose code is swapped.
        mode: of the perturbation.
        folder: for pictures; ``None`` draws none.
        warmed_up: whether quantized features have replaced continuous ones.
        log: told what looks wrong.
    """

    number: int
    last: int
    network: Any
    regions: bool
    epsilon: float
    mode: str
    folder: Path | None
    warmed_up: bool
    log: Callable[[str], None]


class CodebookDiagnostics:
    """Count code use on the device; once an epoch turn it into numbers and pictures.

    Args:
        quantizers: of the student, shallow to deep.
        device: where counting happens.
    """

    def __init__(self, quantizers: Iterable[VectorQuantizer], device: torch.device) -> None:
        self.quantizers = list(quantizers)
        self.device = device
        self.reset()
        self.snapshots: list[dict[str, Any]] = []

    def _zeros(self, quantizer: VectorQuantizer) -> Tensor:
        return torch.zeros(quantizer.codebook.shape[0], device=self.device)

    def reset(self) -> None:
        """Start the epoch's histogram."""
        self.counts = [self._zeros(q) for q in self.quantizers]

    @torch.no_grad()
    def count(self, quantized: list[Quantized]) -> None:
        """Add one pass's codes to the epoch's histogram, without waiting for the device."""
        for counts, result in zip(self.counts, quantized, strict=True):
            codes = result.indices.flatten()
            counts.scatter_add_(0, codes, torch.ones_like(codes, dtype=counts.dtype))

    @torch.no_grad()
    def finish_epoch(self, epoch: Epoch, unlabeled: Unlabeled) -> dict[str, float]:
        """Return the epoch's numbers; draw pictures at the first, middle and last epoch."""
        values: dict[str, float] = {}
        used = []
        for index, counts in enumerate(self.counts):
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(counts)
            share = counts / counts.sum().clamp_min(1)
            entropy = -(share * share.clamp_min(1e-12).log()).sum()
            values[f"codes_used_{index}"] = float((counts > 0).float().mean())
            values[f"code_perplexity_{index}"] = float(entropy.exp())
            used.append((counts > 0).cpu())
        values.update(self.effect(epoch, unlabeled))
        swapping = epoch.warmed_up and epoch.epsilon > 0
        if swapping and 0 < values["sensitivity"] < SENSITIVE:
            epoch.log(
                f"Swapping codes changes the foreground by {values['sensitivity']:.2%} only: "
                "the perturbation has little effect."
            )
        try:
            with default_style():
                self._picture(epoch, unlabeled, used)
        except Exception as error:  # A training of days must not end for a picture.
            epoch.log(f"No picture of the codes: {error!r}")
        self.reset()
        return values

    @torch.no_grad()
    def effect(self, epoch: Epoch, unlabeled: Unlabeled) -> dict[str, float]:
        """Return what quantizing and swapping do to the epoch's last unlabeled patches.

        ``quantization_error_n``: mean squared distance from token to code over their variance.
        ``sensitivity``: total variation between the student's outputs with and without swaps, where
        either of them has foreground; 0 where neither has.
        """
        share = torch.full((), epoch.epsilon or 0.7, device=self.device)
        clean, swapped = (
            epoch.network.predictor(unlabeled.image, epsilon, epoch.mode, details=True)
            for epsilon in (None, share)
        )
        values: dict[str, float] = {}
        for index, (quantizer, result) in enumerate(
            zip(self.quantizers, clean.quantized, strict=True)
        ):
            error = result.tokens - quantizer.codebook[result.indices.flatten()]
            variance = result.tokens.var(0, correction=0).sum().clamp_min(1e-12)
            values[f"quantization_error_{index}"] = float(error.square().sum(1).mean() / variance)
        one, other = (
            probabilities(_full(output.logits), epoch.regions) for output in (clean, swapped)
        )
        change = (1.0 if epoch.regions else 0.5) * (one - other).abs().sum(1)
        where = foreground(one, epoch.regions) | foreground(other, epoch.regions)
        where &= unlabeled.valid[:, 0]
        values["sensitivity"] = float((change * where).sum() / where.sum().clamp_min(1))
        return values

    def _picture(self, epoch: Epoch, unlabeled: Unlabeled, used: list[Tensor]) -> None:
        number, last, folder = epoch.number, epoch.last, epoch.folder
        if folder is None or number not in (0, last // 2, last):
            return
        quantizer = self.quantizers[0]
        snapshot = {"epoch": number, "codes": quantizer.codebook.cpu(), "used": used[0]}
        self.snapshots = [s for s in self.snapshots if s["epoch"] < number] + [snapshot]
        logits, parts, _ = epoch.network(unlabeled.image)
        with atomic_path(folder / "semisup_code_maps.png") as temporary:
            plot_code_maps(
                unlabeled.image.float().cpu(),
                parts.quantized[0].indices.cpu(),
                None if parts.image is None else parts.image.float().cpu(),
                probabilities(_full(logits), epoch.regions).cpu(),
                epoch.regions,
                temporary,
            )
        if number == last:
            with atomic_path(folder / "semisup_codebook.png") as temporary:
                plot_evolution(self.snapshots, temporary)

    def state_dict(self) -> dict[str, Any]:
        """Return the unfinished epoch's histogram and the snapshots."""
        return {"counts": [c.cpu() for c in self.counts], "snapshots": self.snapshots}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.counts = [c.to(self.device) for c in state["counts"]]
        self.snapshots = [
            {**s, "codes": s["codes"].cpu(), "used": s["used"].cpu()} for s in state["snapshots"]
        ]


def _full(output: Any) -> Tensor:
    return output[0] if isinstance(output, (list, tuple)) else output
