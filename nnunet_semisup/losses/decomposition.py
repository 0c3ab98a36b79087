"""Images as structure plus noise: closed-form precisions and the negative evidence bound.

[0] Gao et al., Joint modeling of image and label statistics for enhancing model generalizability of
    medical image segmentation (BayeSeg), MICCAI 2022, and released code.

The image is y = x + n with n ~ N(m, 1 / rho). q(x) and q(m) are Gaussians with a mean and a
variance in each voxel, z are the probabilities of the classes, D is the Laplacian of four
neighbours divided by -4. With var the variances and E[r^2] = (y - x - m)^2 + var_x + var_m:

    rho     = (2 g + 1) / (E[r^2] + 2 phi)
    upsilon = (2 g + K) / ((Dx)^2 + 2 var_x + 2 phi)
    omega_k = (2 g + 1) / (mean(z_k) (Dz_k)^2 + 2 phi)
    pi_k    = digamma(a + b_k) - digamma(b_k),
              a = 2 + N / 2,  b_k = 2 + sum of omega_k (Dz_k)^2 / 2

Deviates from the released code: E[r^2] in place of one sample's r^2; z without a variance; the
border is repeated (there: 0, an edge of its own); the sum over z_k that weighs upsilon is 1 there
and left out. There phi is 1e-6, 1e-8 and 1e-4, and all is divided by the mean of rho, which
changes from step to step: edges may then weigh far more than the data, and nnU-Net's SGD, whose
steps unlike Adam's are as large as the gradients, overshoots. Here phi is 0.01 of the variance of a
normalised image, and all is divided by the greatest rho.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_semisup.losses.precision import float32

SHAPE = 2.0
"""Of the precisions' Gamma priors, g (released code)."""
RATE = 0.01
"""Their rate, phi."""
PI_PRIOR = 2.0
"""Both parameters of the Beta prior of a class's share (released code)."""
LOG_VARIANCES = (-20.0, 0.0)
"""Least and greatest logarithm of a variance (released code)."""


class Gaussian(NamedTuple):
    """Hold a Gaussian of each voxel.

    Attributes:
        mean: ``(B, C, h, w)``.
        log_variance: the same.
    """

    mean: Tensor
    log_variance: Tensor

    @property
    def variance(self) -> Tensor:
        """Variance of each voxel."""
        return self.log_variance.exp()

    def sample(self) -> Tensor:
        """Return a sample that passes gradients on to mean and variance.

        Its random numbers depend on neither precision nor memory order.
        """
        noise = torch.randn(self.mean.shape, device=self.mean.device)
        return self.mean + (0.5 * self.log_variance).exp() * noise


class Precisions(NamedTuple):
    """Hold precisions, without gradient.

    Attributes:
        rho: of the data, ``(B, C, h, w)``.
        upsilon: of the structure's edges, ``(B, C, h, w)``.
        omega: of the classes' boundaries, ``(B, K, h, w)``.
        pi: of the classes' shares, ``(B, K, 1, 1)``.
    """

    rho: Tensor
    upsilon: Tensor
    omega: Tensor
    pi: Tensor


class Evidence(NamedTuple):
    """Hold the parts of the negative bound, scalars; lower is better.

    Attributes:
        data: what means of structure and noise leave of the image; 0 where they leave nothing.
        structure: its edges and its variance.
        noise: its size and its variance.
        boundary: of the classes.
    """

    data: Tensor
    structure: Tensor
    noise: Tensor
    boundary: Tensor

    @property
    def total(self) -> Tensor:
        """Sum of the parts."""
        return self.data + self.structure + self.noise + self.boundary


def curvature(maps: Tensor) -> Tensor:
    """Return each voxel minus the mean of its four neighbours; 0 for a constant map.

    Args:
        maps: ``(B, C, h, w)``; the border is repeated.
    """
    padded = F.pad(maps, (1, 1, 1, 1), mode="replicate")
    rows = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
    columns = padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    return maps - 0.25 * (rows + columns)


def class_maps(probs: Tensor, regions: bool) -> Tensor:
    """Return maps that add up to 1 in each voxel, the background's among them.

    Args:
        probs: ``(B, C, h, w)`` probabilities of classes, or of regions, which may overlap.
        regions: they are of regions.
    """
    if not regions:
        return probs
    background = 1.0 - probs.amax(1, keepdim=True)
    maps = torch.cat([background, probs], 1)
    return maps / maps.sum(1, keepdim=True)


def interior(valid: Tensor) -> Tensor:
    """Return as 0 or 1 which voxels have no padding next to them.

    Args:
        valid: ``(B, 1, h, w)`` bool, false in padding.
    """
    return 1.0 - F.max_pool2d((~valid).float(), 3, 1, 1)


@torch.no_grad()
def update_precisions(
    image: Tensor, structure: Gaussian, noise: Gaussian, maps: Tensor, counted: Tensor
) -> Precisions:
    """Return the closed-form updates, as the module says, each above 0.

    Args:
        image: ``(B, C, h, w)``.
        structure: q(x).
        noise: q(m).
        maps: z, ``(B, K, h, w)``.
        counted: ``(B, 1, h, w)``, 1 where a voxel counts.
    """
    residual = image - structure.mean - noise.mean
    squared = residual.square() + structure.variance + noise.variance
    rho = (2 * SHAPE + 1) / (squared + 2 * RATE)
    edges = curvature(structure.mean).square() + 2 * structure.variance
    upsilon = (2 * SHAPE + maps.shape[1]) / (edges + 2 * RATE)
    bent = curvature(maps).square()
    number = counted.sum((2, 3), keepdim=True)
    share = (maps * counted).sum((2, 3), keepdim=True) / number.clamp_min(1)
    omega = (2 * SHAPE + 1) / (share * bent + 2 * RATE)
    first = PI_PRIOR + 0.5 * number
    second = PI_PRIOR + 0.5 * (omega * bent * counted).sum((2, 3), keepdim=True)
    return Precisions(rho, upsilon, omega, torch.digamma(first + second) - torch.digamma(second))


@float32
def negative_evidence(
    image: Tensor, structure: Gaussian, noise: Gaussian, maps: Tensor, valid: Tensor | None = None
) -> Evidence:
    """Return the negative evidence bound as means over voxels, divided by the greatest rho.

    Nothing depends on the number of voxels, but pi by its prior. Gradient reaches everything but
    the precisions ([0]). A squared residual then weighs at most 1.

    Args:
        image: ``(B, C, h, w)`` float32.
        structure: q(x).
        noise: q(m).
        maps: z, ``(B, K, h, w)``, which add up to 1.
        valid: ``(B, 1, h, w)`` bool, false in padding, next to which no voxel counts either.
    """
    everywhere = torch.ones_like(image[:, :1], dtype=torch.bool)
    counted = interior(everywhere if valid is None else valid)
    rho, upsilon, omega, pi = update_precisions(image, structure, noise, maps, counted)

    def mean(values: Tensor) -> Tensor:
        return (values.mean(1, keepdim=True) * counted).sum() / counted.sum().clamp_min(1)

    scale = 2 * RATE / (2 * SHAPE + 1)
    residual = image - structure.mean - noise.mean
    edges = curvature(structure.mean).square() + 2 * structure.variance
    of_structure = upsilon * edges + rho * structure.variance - structure.log_variance
    size = noise.mean.square() + noise.variance
    of_noise = size + rho * noise.variance - noise.log_variance
    bent = (pi * omega * curvature(maps).square()).sum(1, keepdim=True)
    parts = rho * residual.square(), of_structure, of_noise, bent
    return Evidence(*(scale * mean(part) for part in parts))
