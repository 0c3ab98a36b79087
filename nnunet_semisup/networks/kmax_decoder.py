"""The plan's decoder with queries, which classify, in the place of its segmentation layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_semisup.networks.decode import Decoded
from nnunet_semisup.networks.kernels import kernels_of
from nnunet_semisup.networks.kmax import (
    CONVOLUTIONS,
    Assigned,
    InstanceNorm,
    KMaxLayer,
    MaskPredictor,
    Widths,
    project,
)

SCALES = 3
"""Feature maps with layers, from the bottleneck on, below full resolution (DK-UXNet, figure 1)."""
LAYERS_PER_SCALE = 2
KERNEL = 5
"""Of the depthwise convolutions, along axes that the plan's own convolutions look along."""
LEAST_WIDTH = 32
"""Of queries; with less, unit vectors of pixels lie so close that float16 disturbs them."""
_UPSAMPLING = {2: "bilinear", 3: "trilinear"}


def resized(x: Tensor, spatial: Sequence[int]) -> Tensor:
    """Return a map ``(B, C, *spatial)`` at another resolution, by linear interpolation."""
    if tuple(x.shape[2:]) == tuple(spatial):
        return x
    return F.interpolate(x, tuple(spatial), mode=_UPSAMPLING[x.ndim - 2])


class QueryHead(nn.Module):
    """Classify the voxels at full resolution by queries.

    Masks are made at the resolution of the second stage, from patches of its stride. Classes are
    merged there and interpolated, which is the same as merging interpolated shares, for K maps in
    place of N.

    Args:
        in_channels: of the features.
        stride: from full resolution to that of the masks.
        widths: of pixels and queries.
        classes: K.
        kernel: of the depthwise convolution.
    """

    def __init__(
        self,
        in_channels: int,
        stride: Sequence[int],
        widths: Widths,
        classes: int,
        kernel: Sequence[int],
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        width = widths.projection
        self.patches = CONVOLUTIONS[len(stride)](
            in_channels, width, tuple(stride), tuple(stride), bias=False
        )
        self.norm = nn.Sequential(InstanceNorm(width), nn.GELU())
        self.queries = nn.Sequential(*project(widths.queries, width, InstanceNorm), nn.GELU())
        self.predictor = MaskPredictor(widths, classes, kernel, InstanceNorm)

    def forward(self, features: Tensor, queries: Tensor) -> Assigned:
        """Return masks at the lower resolution, and classes.

        Args:
            features: ``(B, C, *spatial)`` at full resolution.
            queries: ``(B, Q, N)``.
        """
        pixels = self.patches(features)
        pixels = self.norm(pixels.flatten(2)).reshape(pixels.shape)
        return self.predictor(pixels, self.queries(queries))


class KMaxDecoder(UNetDecoder):
    """Decode as the plan's decoder does, and classify by queries that layers of k-means move.

    Two layers each at the bottleneck and after the first two stages. Under deep supervision, the
    lowest output that nnU-Net's loss counts is the mean of what all layers say: every layer's
    assignment, which no gradient passes through, learns from it. Other outputs are the plan's.

    Args:
        decoder: of the plan's U-Net, whose stages it takes over.
        queries: their number N.
        width: their number of channels, a multiple of 8; a layer works in the width of the plan's
            features there, where that is less.
    """

    def __init__(self, decoder: Any, queries: int, width: int) -> None:
        nn.Module.__init__(self)
        self.deep_supervision = decoder.deep_supervision
        self.encoder = encoder = decoder.encoder
        self.num_classes = decoder.num_classes
        self.stages, self.transpconvs = decoder.stages, decoder.transpconvs
        outputs = len(self.stages)
        self.common = max(1, outputs - 2)
        channels, classes = list(encoder.output_channels), self.num_classes
        kernels = kernels_of(encoder, KERNEL)
        widths = [
            Widths.of(width, min(width, max(LEAST_WIDTH, n // 8 * 8)))
            for n in encoder.output_channels
        ]
        self.centres = nn.Embedding(queries, width)
        self.layers: Any = nn.ModuleList(
            nn.ModuleList(
                KMaxLayer(channels[stage], widths[stage], classes, kernels[stage])
                for _ in range(LAYERS_PER_SCALE)
            )
            for stage in range(outputs, max(0, outputs - SCALES), -1)
        )
        head = QueryHead(channels[0], encoder.strides[1], widths[1], classes, kernels[1])
        kept = [
            layer
            for output, layer in zip(range(outputs - 1, -1, -1), decoder.seg_layers, strict=True)
            if output not in (0, self.common)
        ]
        self.seg_layers = nn.ModuleList([*kept, head])

    def decode(self, skips: Sequence[Tensor]) -> Decoded:
        """Return logits, features and the layers' masks, the head's last.

        Args:
            skips: features of the encoder, shallow to deep.
        """
        x = skips[-1]
        queries = self.centres.weight.t().expand(len(x), -1, -1)
        queries, assigned = self.gathered(0, x, queries)
        features: list[Tensor] = []
        steps = zip(self.transpconvs, reversed(skips[:-1]), self.stages, strict=True)
        for number, (upsample, skip, stage) in enumerate(steps, 1):
            x = stage(torch.cat((upsample(x), skip), 1))
            features.insert(0, x)
            queries, more = self.gathered(number, x, queries)
            assigned += more
        head = self.seg_layers[-1](x, queries)
        full = resized(head.merged(), x.shape[2:])
        masks = tuple(each.masks for each in (*assigned, head))
        if not self.deep_supervision:
            return Decoded(full, tuple(features), masks)
        layers = iter(self.seg_layers[:-1])
        logits: list[Tensor] = []
        for output in range(len(features) - 1, 0, -1):
            shape = features[output].shape[2:]
            if output == self.common:
                said = [resized(each.merged(), shape) for each in assigned]
                logits.insert(0, torch.stack(said).mean(0))
            else:
                logits.insert(0, next(layers)(features[output]))
        return Decoded([full, *logits], tuple(features), masks)

    def gathered(self, number: int, x: Tensor, queries: Tensor) -> tuple[Tensor, list[Assigned]]:
        """Return the queries that the layers of a scale moved, and what they said; or as they are.

        Args:
            number: of the scale; 0 is the bottleneck.
            x: its features ``(B, C, *spatial)``.
            queries: ``(B, Q, N)``.
        """
        said: list[Assigned] = []
        for layer in self.layers[number] if number < len(self.layers) else ():
            queries, one = layer(x, queries)
            said.append(one)
        return queries, said

    def forward(self, skips: Sequence[Tensor]) -> Any:
        """Return the logits; a list of them under deep supervision, full resolution first."""
        return self.decode(skips).logits
