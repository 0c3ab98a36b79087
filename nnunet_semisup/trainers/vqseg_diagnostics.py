"""What VQ-Seg reports about its codebooks after each epoch: numbers and pictures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.evaluation.codebook_figures import plot_code_maps, plot_evolution
from nnunet_semisup.losses.activation import hard_labels, probabilities
from nnunet_semisup.networks.quantizer import Quantized, VectorQuantizer
from nnunet_semisup.training.monitor import default_style

if TYPE_CHECKING:
    from nnunet_semisup.trainers.vqseg import nnUNetTrainerVQSeg
    from nnunet_semisup.training.batches import Unlabeled

SENSITIVE = 0.01
"""Mean total variation on the foreground below which swaps hardly reach the output."""


def foreground(probs: Tensor, regions: bool) -> Tensor:
    """``(B, *spatial)`` bool, from probabilities ``(B, C, *spatial)``."""
    return (hard_labels(probs, regions) > 0).any(1)


class CodebookDiagnostics:
    """Counts code use on the device; once an epoch turns it into numbers and pictures.

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
        """Starts the epoch's histogram."""
        self.counts = [self._zeros(q) for q in self.quantizers]

    @torch.no_grad()
    def count(self, quantized: list[Quantized]) -> None:
        """Adds one pass's codes to the epoch's histogram, without waiting for the device."""
        for counts, result in zip(self.counts, quantized, strict=True):
            codes = result.indices.flatten()
            counts.scatter_add_(0, codes, torch.ones_like(codes, dtype=counts.dtype))

    @torch.no_grad()
    def finish_epoch(self, trainer: nnUNetTrainerVQSeg, unlabeled: Unlabeled) -> dict[str, float]:
        """The epoch's numbers; pictures at the first, middle and last epoch."""
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
        values.update(self.effect(trainer, unlabeled))
        warmed_up = trainer.quantizer_mix >= 1 and trainer.qpm_epsilon > 0
        if warmed_up and 0 < values["sensitivity"] < SENSITIVE:
            trainer.print_to_log_file(
                f"Swapping codes changes the foreground by {values['sensitivity']:.2%} only: "
                "the perturbation has little effect."
            )
        try:
            with default_style():
                self._picture(trainer, unlabeled, used)
        except Exception as error:  # A training of days must not end for a picture.
            trainer.print_to_log_file(f"No picture of the codes: {error!r}")
        self.reset()
        return values

    @torch.no_grad()
    def effect(self, trainer: nnUNetTrainerVQSeg, unlabeled: Unlabeled) -> dict[str, float]:
        """What quantizing and swapping do to the epoch's last unlabeled patches.

        ``quantization_error_n``: mean squared distance from token to code over their variance.
        ``sensitivity``: total variation between the student's outputs with and without swaps, where
        either of them has foreground; 0 where neither has.
        """
        share = torch.full((), trainer.qpm_epsilon or 0.7, device=self.device)
        clean, swapped = (
            trainer.student(unlabeled.image, epsilon, trainer.qpm_mode, details=True)
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
            probabilities(trainer.full_resolution(output.logits), trainer.regions).float()
            for output in (clean, swapped)
        )
        change = (1.0 if trainer.regions else 0.5) * (one - other).abs().sum(1)
        where = foreground(one, trainer.regions) | foreground(other, trainer.regions)
        where &= unlabeled.valid[:, 0]
        values["sensitivity"] = float((change * where).sum() / where.sum().clamp_min(1))
        return values

    def _picture(
        self, trainer: nnUNetTrainerVQSeg, unlabeled: Unlabeled, used: list[Tensor]
    ) -> None:
        epoch, last = trainer.current_epoch, trainer.num_epochs - 1
        if epoch not in (0, last // 2, last) or trainer.local_rank != 0:
            return
        quantizer = self.quantizers[0]
        snapshot = {"epoch": epoch, "codes": quantizer.codebook.cpu(), "used": used[0]}
        self.snapshots = [s for s in self.snapshots if s["epoch"] < epoch] + [snapshot]
        folder = Path(trainer.output_folder)
        # Only this rank draws: a distributed forward would wait for the others.
        output, image, _ = trainer.training_network(unlabeled.image, details=True)
        logits = trainer.full_resolution(output.logits)
        with atomic_path(folder / "semisup_code_maps.png") as temporary:
            plot_code_maps(
                unlabeled.image.float().cpu(),
                output.quantized[0].indices.cpu(),
                None if image is None else image.float().cpu(),
                probabilities(logits, trainer.regions).cpu(),
                trainer.regions,
                temporary,
            )
        if epoch == last:
            with atomic_path(folder / "semisup_codebook.png") as temporary:
                plot_evolution(self.snapshots, temporary)

    def state_dict(self) -> dict[str, Any]:
        """The unfinished epoch's histogram and the snapshots."""
        return {"counts": [c.cpu() for c in self.counts], "snapshots": self.snapshots}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave."""
        self.counts = [c.to(self.device) for c in state["counts"]]
        self.snapshots = [
            {**s, "codes": s["codes"].cpu(), "used": s["used"].cpu()} for s in state["snapshots"]
        ]
