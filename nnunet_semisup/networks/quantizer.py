"""Vector quantization of a feature map, in 2D and 3D.

[0] VQ-Seg, NeurIPS 2025, arXiv 2601.10124, section 3.1: nearest code, straight-through gradient.
[1] Zhu et al., SimVQ, ICCV 2025, arXiv 2411.02038: the codebook is a frozen Gaussian table mapped
    by one trained linear layer, so all codes move together and none dies; the codebook is that of
    the library vector-quantize-pytorch.

Deviates from [0]: tokens are projected to a small width and layer-normalised before the look-up
and projected back after it (a U-Net's features are wide, rectified and of any norm, a vision
transformer's are not), and the linear layer starts as a scaled rotation so that codes start with
the tokens' norm; :meth:`VectorQuantizer.fit` places them where the tokens are.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.codebook_fit import reproduction_root
from nnunet_semisup.networks.qpm import (
    calibrate_temperature,
    most_entries,
    perturb,
    replacement_logits,
)


class Quantized(NamedTuple):
    """Hold what quantizing a feature map gives.

    Attributes:
        features: ``(B, C, *spatial)``, from the perturbed codes where there is a perturbation.
        clean: ``(B, C, *spatial)``, from the unperturbed codes; the same tensor without one.
        indices: ``(B, *spatial)`` int64 unperturbed codes.
        perturbed: ``(B, *spatial)`` int64 codes behind ``features``.
        tokens: ``(B * n, D)`` float32 normalised tokens before the look-up.
        commitment: scalar, codebook loss plus 0.25 times commitment loss.
    """

    features: Tensor
    clean: Tensor
    indices: Tensor
    perturbed: Tensor
    tokens: Tensor
    commitment: Tensor


def look_up(
    tokens: Tensor, codebook: Tensor, commitment_weight: float = 0.25
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each token's nearest code, with straight-through gradient; memory is bounded.

    SimVQ's own forward pass, but with an embedding: the gradient of the library's indexing adds up
    in an order that depends on the threads, so that a run on the CPU could not be repeated.

    Args:
        tokens: ``(B, n, D)``.
        codebook: ``(K, D)``.
        commitment_weight: of the tokens' part of the loss.

    Returns:
        ``(B, n, D)`` codes whose gradient goes to the tokens unchanged, ``(B, n)`` int64 indices,
        and the scalar ``mean (c - sg z)^2 + commitment_weight * mean (z - sg c)^2``.
    """
    step = max(1, most_entries(tokens.device) // codebook.shape[0])
    with torch.no_grad():
        parts = tokens.float().flatten(0, 1).split(step)
        # The nearest code is the one that a swap by squared distance favors most.
        nearest = [
            replacement_logits(part, codebook.float(), "official").argmax(1) for part in parts
        ]
        indices = torch.cat(nearest).view(tokens.shape[:2])
    codes = F.embedding(indices, codebook)
    loss = F.mse_loss(codes, tokens.detach())
    loss = loss + commitment_weight * F.mse_loss(tokens, codes.detach())
    return tokens + (codes - tokens).detach(), indices, loss


def _simvq() -> Any:
    """Return the library's class, imported late: without it only VQ-Seg is unusable."""
    try:
        from vector_quantize_pytorch import SimVQ
    # A library that does not fit the installed torch may fail in any way.
    except Exception as error:
        raise UserError(
            "VQ-Seg takes its codebook from vector-quantize-pytorch, which cannot be imported "
            f"({type(error).__name__}: {error}). Install it: pip install vector-quantize-pytorch"
        ) from error
    return SimVQ


class VectorQuantizer(nn.Module):
    """Project, normalise, look up by SimVQ, perturb where asked, and project back.

    Args:
        channels: of the feature map.
        codebook_size: number of codes ``K``.
        code_dim: width ``D`` of a code.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.

    Raises:
        UserError: vector-quantize-pytorch cannot be imported.
    """

    mix: Tensor
    temperature: Tensor

    def __init__(self, channels: int, codebook_size: int, code_dim: int, conv_op: Any) -> None:
        super().__init__()
        self.code_dim = code_dim
        self.project_in = conv_op(channels, code_dim, 1)
        self.project_out = conv_op(code_dim, channels, 1)
        transform = nn.Linear(code_dim, code_dim)
        nn.init.orthogonal_(transform.weight, gain=math.sqrt(code_dim))
        nn.init.zeros_(transform.bias)
        self.codes = _simvq()(
            dim=code_dim,
            codebook_size=codebook_size,
            codebook_transform=transform,
            rotation_trick=False,
        )
        self.register_buffer("mix", torch.ones(()))
        self.register_buffer("temperature", torch.ones(()))
        self.calibrate(32.0)

    @property
    def codebook(self) -> Tensor:
        """``(K, D)`` float32 codes; differentiable."""
        with torch.autocast(self.mix.device.type, enabled=False):
            return self.codes.codebook.float()

    @torch.no_grad()
    def calibrate(self, perplexity: float) -> None:
        """Set the perturbation's temperature for the codebook as it is now."""
        self.temperature.copy_(calibrate_temperature(self.codebook, perplexity))

    @torch.no_grad()
    def fit(self, mean: Tensor, covariance: Tensor) -> None:
        """Move all codes at once to where tokens with these moments are best represented.

        Moments that are NaN or Inf move nothing.

        Args:
            mean: ``(D,)`` float32 of the tokens.
            covariance: ``(D, D)`` float32 of the tokens.
        """
        table = self.codes.frozen_codebook.float()
        with torch.autocast(table.device.type, enabled=False):
            finite = covariance.isfinite().all() & mean.isfinite().all()
            covariance = torch.where(finite, covariance, torch.eye(len(mean), device=mean.device))
            weight = reproduction_root(covariance, table.shape[0]) / table.std()
            linear = self.codes.code_transform
            bias = mean - weight @ table.mean(0)
            linear.weight.copy_(torch.where(finite, weight, linear.weight))
            linear.bias.copy_(torch.where(finite, bias, linear.bias))

    def tokenize(self, x: Tensor) -> Tensor:
        """Return ``(B, n, D)`` float32 normalised tokens of a feature map ``(B, C, *spatial)``."""
        tokens = self.project_in(x).float().flatten(2).transpose(1, 2)
        with torch.autocast(x.device.type, enabled=False):
            return F.layer_norm(tokens, (self.code_dim,))

    def forward(
        self, x: Tensor, epsilon: float | Tensor | None = None, mode: str = "calibrated"
    ) -> Quantized:
        """Quantize ``x`` ``(B, C, *spatial)``; with ``epsilon`` in training mode, perturb."""
        tokens, spatial = self.tokenize(x), x.shape[2:]
        with torch.autocast(x.device.type, enabled=False):
            codebook = self.codes.codebook
            codes, flat, commitment = look_up(tokens, codebook)
            swapped, moved = codes, flat
            if epsilon is not None and self.training:
                moved = perturb(flat, codebook, epsilon, mode, self.temperature)
                swapped = tokens + (F.embedding(moved, codebook) - tokens).detach()
        clean = self._back(codes, x, spatial)
        features = clean if moved is flat else self._back(swapped, x, spatial)
        return Quantized(
            features,
            clean,
            flat.view(-1, *spatial),
            moved.view(-1, *spatial),
            tokens.flatten(0, 1),
            commitment,
        )

    def _back(self, codes: Tensor, x: Tensor, spatial: torch.Size) -> Tensor:
        maps = codes.transpose(1, 2).reshape(codes.shape[0], self.code_dim, *spatial)
        return torch.lerp(x, self.project_out(maps).to(x.dtype), self.mix.to(x.dtype))
