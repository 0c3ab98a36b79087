"""Energy of an image's contours, and features weighted by it (after GauSAM's contour guidance)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GAMMA = 0.5
"""Exponent of the compressed subbands; the paper has one, whose value could not be had."""
_FLOOR = 1e-3


def subbands(image: Tensor, levels: int, directions: int) -> Iterator[Tensor]:
    """Yield parts of an image by scale and direction, and what is coarser; they add up to it.

    An undecimated pyramid of B3 splines, each of whose bands is divided by the direction of its
    frequencies; in float32. Each map has the image's size.

    Args:
        image: ``(B, C, H, W)``; goes on beyond its border with the border's values.
        levels: of the pyramid, each of twice the scale; as many times ``directions`` maps come
            before the coarse one.
        directions: wedges of the half plane, overlapping, the first around horizontal frequencies.
    """
    margin = 2 ** (levels + 1)
    height, width = image.shape[2:]
    padded = F.pad(image.float(), (margin,) * 4, mode="replicate")
    frequencies = torch.fft.rfft2(padded)
    rows = 2 * math.pi * torch.fft.fftfreq(padded.shape[2], device=image.device)[:, None]
    columns = 2 * math.pi * torch.fft.rfftfreq(padded.shape[3], device=image.device)[None]
    angle = torch.atan2(rows.expand(-1, columns.shape[1]), columns.expand(rows.shape[0], -1))
    wedges = [
        torch.cos(angle - math.pi * k / directions) ** (2 * (directions - 1))
        for k in range(directions)
    ]
    total = torch.stack(wedges).sum(0)
    coarse = torch.ones_like(angle)

    def spatial(transfer: Tensor) -> Tensor:
        whole = torch.fft.irfft2(frequencies * transfer, s=padded.shape[2:])
        return whole[..., margin : margin + height, margin : margin + width]

    for level in range(levels):
        low = ((1 + torch.cos(2**level * rows)) * (1 + torch.cos(2**level * columns)) / 4) ** 2
        band, coarse = coarse * (1 - low), coarse * low
        yield from (spatial(band * wedge / total) for wedge in wedges)
    yield spatial(coarse)


@torch.no_grad()
def contour_energy(image: Tensor, levels: int, directions: int) -> Tensor:
    """Return the energy of contours, ``(B, C, H, W)`` in float32, with a mean of about 1.

    Subbands of every scale and direction, compressed, ``log(1 + |c|)^gamma``, and summed, over
    their mean in the image's channel; 0 where the image is constant. It has no gradient.

    Args:
        image: ``(B, C, H, W)``.
        levels: see :func:`subbands`.
        directions: see :func:`subbands`.
    """
    with torch.autocast(image.device.type, enabled=False):
        image = image.float()
        bands = subbands(image - image[..., :1, :1], levels, directions)
        parts = (next(bands).abs().log1p() ** GAMMA for _ in range(levels * directions))
        energy = sum(parts, torch.zeros_like(image))
        return energy / (energy.mean((2, 3), keepdim=True) + _FLOOR)


class ContourPropagation(nn.Module):
    """Add to features the contour energy of the image, weighted channel by channel.

    ``F + lambda R E`` with ``R`` in (0, 1) from features and energies, a lambda a channel, which
    starts at 0, and ``E`` the mean energy of the image's channels.

    Args:
        image_channels: of the image.
        features: channels of the features.
        levels: see :func:`subbands`.
        directions: see :func:`subbands`.
    """

    def __init__(self, image_channels: int, features: int, levels: int, directions: int) -> None:
        super().__init__()
        self.levels, self.directions = levels, directions
        hidden = max(1, features // 2)
        self.reweight = nn.Sequential(
            nn.Conv2d(features + image_channels, hidden, 1),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(hidden, features, 1),
            nn.Sigmoid(),
        )
        self.scale = nn.Parameter(torch.zeros(features, 1, 1))

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        """Return features ``(B, F, H, W)`` of the same type.

        Args:
            features: made of the image, at its resolution.
            image: ``(B, C, H, W)``.
        """
        energy = contour_energy(image, self.levels, self.directions).to(features.dtype)
        weights = self.reweight(torch.cat((features, energy), 1))
        added = self.scale * weights * energy.mean(1, keepdim=True)
        return features + added.to(features.dtype)
