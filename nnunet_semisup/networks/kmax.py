"""Queries that gather the pixels of a feature map like the centres of k-means.

[0] Yu et al., kMaX-DeepLab: k-means mask transformer, ECCV 2022, arXiv 2207.04044.

Everything between the two depthwise convolutions works on ``(B, C, L)``, L pixels or voxels, so a
layer is the same for any number of dimensions. Inner products, assignment and sums are float32.

Deviates from [0]: every normalisation is over one image and has no running statistics (batch
normalisation's, with a batch of one), so that a network gives the same in training and in
prediction, whatever else is in the batch; mask logits begin with a standard deviation of 3 (in [0]
0.1: with nnU-Net's SGD, voxels then long belong to all queries alike); no class "void".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_semisup.losses.precision import float32

CONVOLUTIONS: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
MASK_GAIN = 3.0
"""Standard deviation that mask logits begin with."""
GREATEST_HEADS = 8


class InstanceNorm(nn.InstanceNorm1d):
    """Normalise ``(B, C, L)`` over L; its weights are ``gain`` at first and when reset."""

    def __init__(self, channels: int, gain: float = 1.0) -> None:
        self.gain = gain
        super().__init__(channels, affine=True)

    def reset_parameters(self) -> None:
        """Set the weights to the gain and the biases to 0."""
        super().reset_parameters()
        nn.init.constant_(self.weight, self.gain)


Norm = Callable[[int, float], nn.Module]
"""Make a normalisation of ``(B, C, L)`` from its number of channels and its first weight."""


@dataclass(frozen=True)
class Widths:
    """Hold the numbers of channels within a layer.

    Attributes:
        queries: of a query.
        projection: of the space in which pixels and queries meet.
        key, value: of the self-attention, over all heads.
        embedding: of what the mask logits are inner products of.
        hidden: between both layers of the perceptron.
        heads: of the self-attention.
    """

    queries: int
    projection: int
    key: int
    value: int
    embedding: int
    hidden: int
    heads: int

    @classmethod
    def of(cls, queries: int, within: int) -> Widths:
        """Return [0]'s proportions, which has (256, 256, 128, 256, 128, 2048, 8).

        Args:
            queries: channels of a query.
            within: of the projection, a multiple of 4.
        """
        half = within // 2
        heads = math.gcd(GREATEST_HEADS, half)
        return cls(queries, within, half, within, half, 8 * queries, heads)


class Assigned(NamedTuple):
    """Hold what queries say of a feature map.

    Attributes:
        masks: ``(B, N, *spatial)`` float32; a softmax over N shares each voxel among the queries.
        classes: ``(B, K, N)`` logits of each query.
    """

    masks: Tensor
    classes: Tensor

    def merged(self) -> Tensor:
        """Return logits ``(B, K, *spatial)``: the queries' own, by their shares in a voxel."""
        return merge(self.masks, self.classes)


@float32
def merge(masks: Tensor, classes: Tensor) -> Tensor:
    """Return ``classes . softmax(masks)``, ``(B, K, *spatial)``, of what :class:`Assigned` has."""
    return torch.einsum("bkn,bn...->bk...", classes, masks.softmax(1))


@float32
def similarity(embedding: Tensor, kernels: Tensor) -> Tensor:
    """Return inner products ``(B, N, L)`` of pixels of unit length ``(B, E, L)`` and queries.

    Args:
        embedding: of the pixels, of any length.
        kernels: ``(B, E, N)`` of the queries.
    """
    return torch.einsum("bel,ben->bnl", F.normalize(embedding, dim=1), kernels)


@float32
def cluster_sums(masks: Tensor, values: Tensor) -> Tensor:
    """Return the sum of the values of each query's pixels ``(B, V, N)``; no gradient to ``masks``.

    A pixel belongs to the query with its greatest logit, as to the nearest centre in k-means ([0],
    eq. 7).

    Args:
        masks: ``(B, N, L)`` logits.
        values: ``(B, V, L)`` of the pixels.
    """
    nearest = masks.argmax(1, keepdim=True)
    chosen = torch.zeros_like(masks, requires_grad=False).scatter_(1, nearest, 1.0)
    return torch.einsum("bnl,bvl->bvn", chosen.detach(), values)


def project(inputs: int, outputs: int, norm: Norm, gain: float = 1.0) -> list[nn.Module]:
    """Return a map of every pixel or query by itself, and its normalisation."""
    return [nn.Conv1d(inputs, outputs, 1, bias=False), norm(outputs, gain)]


class MaskPredictor(nn.Module):
    """Give each query a mask over a feature map, and classes.

    Args:
        widths: within the layer; pixels and queries come in the width of the projection.
        classes: number K of logits a query.
        kernel: of the depthwise convolution, a length for each axis.
        norm: makes the normalisations.
    """

    def __init__(self, widths: Widths, classes: int, kernel: Sequence[int], norm: Norm) -> None:
        super().__init__()
        width, embedding = widths.projection, widths.embedding
        self.depthwise = CONVOLUTIONS[len(kernel)](
            width, width, tuple(kernel), padding=[k // 2 for k in kernel], groups=width, bias=False
        )
        self.pixels = nn.Sequential(
            norm(width, 1.0),
            nn.GELU(),
            *project(width, width, norm),
            nn.GELU(),
            *project(width, embedding, norm),
        )
        self.kernels = nn.Sequential(*project(width, embedding, norm))
        self.scale = norm(1, MASK_GAIN)
        self.classes = nn.Conv1d(width, classes, 1)

    def forward(self, pixels: Tensor, queries: Tensor) -> Assigned:
        """Return the masks and classes of queries.

        Args:
            pixels: ``(B, P, *spatial)``.
            queries: ``(B, P, N)``.
        """
        embedding = self.pixels(self.depthwise(pixels).flatten(2))
        logits = similarity(embedding, self.kernels(queries))
        masks = self.scale(logits.flatten(1)[:, None])
        spatial = pixels.shape[2:]
        return Assigned(masks.reshape(*logits.shape[:2], *spatial), self.classes(queries))


class SelfAttention(nn.Module):
    """Let queries look at each other ([0]: logits are normalised a head, not divided by a root).

    Args:
        widths: within the layer.
        norm: makes the normalisations.
    """

    def __init__(self, widths: Widths, norm: Norm) -> None:
        super().__init__()
        self.heads = widths.heads
        self.sizes = [widths.key, widths.key, widths.value]
        self.qkv = nn.Sequential(*project(widths.projection, sum(self.sizes), norm))
        self.scale = norm(widths.heads, 1.0)
        self.out = nn.Sequential(
            norm(widths.value, 1.0), nn.GELU(), *project(widths.value, widths.queries, norm, 0.0)
        )

    def forward(self, queries: Tensor) -> Tensor:
        """Map ``(B, P, N)`` to what is added to the queries, ``(B, Q, N)``."""
        parts = self.qkv(queries).split(self.sizes, 1)
        query, key, value = (part.unflatten(1, (self.heads, -1)) for part in parts)
        logits = torch.einsum("bhdn,bhdm->bhnm", query, key)
        weights = self.scale(logits.flatten(2)).reshape(logits.shape).softmax(-1)
        return self.out(torch.einsum("bhnm,bhdm->bhdn", weights, value).flatten(1, 2))


class KMaxLayer(nn.Module):
    """Move queries to the sums of the pixels that are most like them ([0], k-means attention).

    Args:
        channels: of the pixels.
        widths: within the layer.
        classes: number K of logits a query.
        kernel: of the depthwise convolution, a length for each axis.
        norm: makes the normalisations.
    """

    def __init__(
        self,
        channels: int,
        widths: Widths,
        classes: int,
        kernel: Sequence[int],
        norm: Norm = InstanceNorm,
    ) -> None:
        super().__init__()
        width = widths.projection
        self.pixels = nn.Sequential(nn.GELU(), *project(channels, width, norm), nn.GELU())
        self.queries = nn.Sequential(*project(widths.queries, width, norm), nn.GELU())
        self.predictor = MaskPredictor(widths, classes, kernel, norm)
        self.values = nn.Sequential(*project(width, widths.value, norm))
        self.update = nn.Sequential(
            norm(widths.value, 1.0), *project(widths.value, widths.queries, norm, 0.0)
        )
        self.attention = SelfAttention(widths, norm)
        self.perceptron = nn.Sequential(
            *project(widths.queries, widths.hidden, norm),
            nn.GELU(),
            *project(widths.hidden, widths.queries, norm, 0.0),
        )

    def forward(self, pixels: Tensor, queries: Tensor) -> tuple[Tensor, Assigned]:
        """Return the moved queries ``(B, Q, N)``, and what they said before.

        Args:
            pixels: ``(B, C, *spatial)``.
            queries: ``(B, Q, N)``.
        """
        spatial = pixels.shape[2:]
        flat, projected = self.pixels(pixels.flatten(2)), self.queries(queries)
        assigned = self.predictor(flat.unflatten(2, spatial), projected)
        sums = cluster_sums(assigned.masks.flatten(2), self.values(flat))
        queries = queries + self.update(sums)
        queries = F.gelu(queries + self.attention(projected))
        return F.gelu(queries + self.perceptron(queries)), assigned
