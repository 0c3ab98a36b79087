"""A segmentation head that draws logits from a field of Gaussians, in GauSAM's manner.

[0] GauSAM, NeurIPS 2025 (OpenReview 7LulWI9QJy). Its field, without its segment-anything encoder
    and without its box prompt.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RADIUS = 3
"""Cells on each side of a pixel's own whose Gaussians it sees: 7 x 7."""
SIGMAS = (0.2, 1.0)
"""Least and greatest standard deviation, in cells, that templates start with."""
_NOWHERE = -1e4
_LEAST_VARIANCE = 1e-3
_LARGEST_CORRELATION = 0.9


class Gaussians(NamedTuple):
    """Hold one Gaussian a cell of a grid.

    Attributes:
        values: what it paints, ``(B, D, h, w)``.
        covariance: ``xx``, ``xy`` and ``yy`` in squared cells, ``(B, 3, h, w)``.
        log_opacity: ``(B, 1, h, w)``.
        drift: of its centre from the cell's, ``x`` and ``y`` in cells, ``(B, 2, h, w)``.
    """

    values: Tensor
    covariance: Tensor
    log_opacity: Tensor
    drift: Tensor


def neighbourhood(grid: Tensor, radius: int, outside: float = 0.0) -> Tensor:
    """Return what the cells around each cell hold, ``(B, C, h, w, (2 radius + 1)^2)``.

    Args:
        grid: ``(B, C, h, w)``.
        radius: cells on each side.
        outside: value of cells beyond the border.
    """
    padded = F.pad(grid, (radius,) * 4, value=outside)
    size = 2 * radius + 1
    return padded.unfold(2, size, 1).unfold(3, size, 1).flatten(4)


def shares(gaussians: Gaussians, samples: int, radius: int = RADIUS) -> Tensor:
    """Return the share of each Gaussian around in each sample of a cell.

    Opacity times ``exp(-d' S^-1 d / 2)``, which is 1 at a centre, over their sum, so that shares
    add up to 1 everywhere. A softmax of logarithms: no sample is too far from all.

    Args:
        gaussians: one a cell; float32.
        samples: along each side of a cell.
        radius: cells on each side whose Gaussians are seen.

    Returns:
        ``(B, h, w, samples, samples, (2 radius + 1)^2)``, rows before columns.
    """
    xx, xy, yy = gaussians.covariance.unbind(1)
    determinant = xx * yy - xy * xy
    precision = torch.stack((yy, -xy, xx), 1) / determinant[:, None]
    a, b, c = neighbourhood(precision, radius, 1.0).unbind(1)
    drift_x, drift_y = neighbourhood(gaussians.drift, radius).unbind(1)
    opacity = neighbourhood(gaussians.log_opacity, radius, _NOWHERE)[:, 0]
    device = opacity.device
    steps = torch.arange(-radius, radius + 1, device=device, dtype=opacity.dtype)
    columns, rows = steps.repeat(len(steps)), steps.repeat_interleave(len(steps))
    inside = (torch.arange(samples, device=device, dtype=opacity.dtype) + 0.5) / samples - 0.5
    dx = inside[:, None] - (columns + drift_x)[..., None, :]
    dy = inside[:, None] - (rows + drift_y)[..., None, :]
    along_x = 0.5 * a[..., None, :] * dx * dx
    along_y = 0.5 * c[..., None, :] * dy * dy - opacity[..., None, :]
    across = (b[..., None, :] * dy)[..., None, :] * dx[..., None, :, :]
    return (-along_y[..., None, :] - along_x[..., None, :, :] - across).softmax(-1)


def splat(values: Tensor, weights: Tensor) -> Tensor:
    """Return the field, ``(B, D, h * samples, w * samples)``: means of values by their shares.

    Args:
        values: ``(B, D, h, w)``.
        weights: shares of the Gaussians around, from :func:`shares`.
    """
    batch, height, width, samples, _, count = weights.shape
    radius = (int(count**0.5) - 1) // 2
    around = neighbourhood(values, radius).permute(0, 2, 3, 4, 1)
    drawn = torch.matmul(weights.flatten(3, 4), around.to(weights.dtype))
    drawn = drawn.view(batch, height, width, samples, samples, -1).permute(0, 5, 1, 3, 2, 4)
    return drawn.reshape(batch, -1, height * samples, width * samples)


class Templates(nn.Module):
    """Hold shapes and opacities of which each Gaussian is a convex combination.

    They start round, their standard deviations evenly spaced, with an opacity of sigmoid(1) ([0]).

    Args:
        number: of templates.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        sigmas = torch.linspace(*SIGMAS, number)
        self.log_sigmas = nn.Parameter(sigmas.log()[:, None].repeat(1, 2))
        self.correlation = nn.Parameter(torch.zeros(number))
        self.opacity = nn.Parameter(torch.ones(number))

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return covariances ``(B, 3, h, w)`` and logarithms of opacities ``(B, 1, h, w)``.

        Args:
            logits: of the mixture, ``(B, number, h, w)``.
        """
        with torch.autocast(logits.device.type, enabled=False):
            x, y = self.log_sigmas.exp().unbind(1)
            xy = _LARGEST_CORRELATION * torch.tanh(self.correlation) * x * y
            table = torch.stack(
                (x * x + _LEAST_VARIANCE, xy, y * y + _LEAST_VARIANCE, self.opacity), 1
            )
            mixed = torch.einsum("bmhw,mc->bchw", logits.float().softmax(1), table)
            return mixed[:, :3], F.logsigmoid(mixed[:, 3:])


class GaussianFieldHead(nn.Module):
    """Give logits from a field of Gaussians, one a cell of the feature map.

    A strided convolution makes each cell's value; from that come the mixture of templates and a
    drift of at most a cell, 0 at the start; a pixel's field is the mean of the values of the 7 x 7
    Gaussians around by their shares. Two layers make logits of it and of the pixel's own features:
    what is thinner than a cell is lost in the field.

    Args:
        in_channels: of the features.
        out_channels: of the logits.
        cell: pixels along the side of a cell.
        templates: their number.
    """

    def __init__(self, in_channels: int, out_channels: int, cell: int, templates: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.cell = in_channels, out_channels, cell
        self.to_values = nn.Conv2d(in_channels, in_channels, cell, cell)
        self.to_mixture = nn.Conv2d(in_channels, templates, 1)
        self.to_drift = nn.Conv2d(in_channels, 2, 1)
        self.drift_scale = nn.Parameter(torch.zeros(2, 1, 1))
        self.templates = Templates(templates)
        self.layers = nn.Sequential(
            nn.Conv2d(2 * in_channels, 2 * in_channels, 1),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(2 * in_channels, out_channels, 1),
        )

    def gaussians(self, x: Tensor) -> Gaussians:
        """Return a Gaussian for each cell of features ``(B, C, H, W)``, begun ones included."""
        height, width = x.shape[2:]
        values = self.to_values(F.pad(x, (0, -width % self.cell, 0, -height % self.cell)))
        covariance, log_opacity = self.templates(self.to_mixture(values))
        drift = torch.tanh(self.drift_scale * self.to_drift(values).float())
        return Gaussians(values, covariance, log_opacity, drift)

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``(B, C, H, W)`` to logits ``(B, out_channels, H, W)``."""
        gaussians = self.gaussians(x)
        field = splat(gaussians.values, shares(gaussians, self.cell))
        field = field[..., : x.shape[2], : x.shape[3]].to(x.dtype)
        logits: Tensor = self.layers(torch.cat((field, x), 1))
        return logits
