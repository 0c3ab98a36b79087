"""Representations beside the segmentation: of each voxel, and of what lies at the bottleneck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_semisup.networks.decode import decode, encode
from nnunet_semisup.networks.training_network import Outputs, TrainingNetwork

WIDTH = 64
"""Channels of a representation (released code of ARCO: 496 in 2D, 16 in 3D)."""


class Representations(NamedTuple):
    """Hold what a pass says of an image's content.

    Attributes:
        voxels: ``(B, D, *spatial)``, in 3D at half the resolution of the patch.
        whole: ``(B, D, *bottleneck)``.
    """

    voxels: Tensor
    whole: Tensor


class PyramidHead(nn.Module):
    """Bring features of several decoder stages to one map, from the deepest to the finest.

    Each goes through a convolution of size 1, is repeated to the next size and added, as in feature
    pyramids (Lin et al., CVPR 2017, arXiv 1612.03144); a rectifier and a convolution follow.

    Args:
        widths: channels of the stages, shallow to deep.
        dims: 2 or 3.
    """

    def __init__(self, widths: Sequence[int], dims: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(_pointwise(dims, width) for width in widths)
        self.project = nn.Sequential(nn.LeakyReLU(), _pointwise(dims, WIDTH))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return ``(B, D, *spatial)`` at the resolution of the first of the features."""
        maps = [layer(each) for layer, each in zip(self.lateral, features, strict=True)]
        total = maps[-1]
        for finer in reversed(maps[:-1]):
            total = finer + F.interpolate(total, finer.shape[2:], mode="nearest")
        return self.project(total)


class RepresentationNetwork(TrainingNetwork):
    """Add representations to the predicting network, and predictions of a teacher's.

    A teacher that follows it has all of them; it gives representations as they are.

    Args:
        predictor: the network that predicts, with an encoder and a decoder of the plans' U-Nets.
        dims: 2 or 3.
    """

    def __init__(self, predictor: Any, dims: int) -> None:
        super().__init__(predictor)
        # Not of the segmentation layers: a decoder with queries has fewer of them than stages.
        widths = list(predictor.encoder.output_channels[:-1])
        self.finest = 1 if dims == 3 and len(widths) > 1 else 0
        self.of_voxels = PyramidHead(widths[self.finest :], dims)
        self.of_whole = _perceptron(dims, predictor.encoder.output_channels[-1])
        self.predicted_voxels = _perceptron(dims, WIDTH)
        self.predicted_whole = _perceptron(dims, WIDTH)

    def forward(self, x: Tensor, predicted: bool = True) -> Outputs:
        """Return the predictor's logits, and as ``parts`` :class:`Representations`.

        Args:
            x: images ``(B, C, *spatial)``.
            predicted: what a teacher's are predicted to be (the student), or one's own.
        """
        skips = encode(self.predictor, x)
        decoded = decode(self.predictor.decoder, skips)
        voxels, whole = self.of_voxels(decoded.features[self.finest :]), self.of_whole(skips[-1])
        if predicted:
            voxels, whole = self.predicted_voxels(voxels), self.predicted_whole(whole)
        return Outputs(decoded.logits, Representations(voxels, whole))


def _pointwise(dims: int, width: int) -> nn.Module:
    convolution = nn.Conv2d if dims == 2 else nn.Conv3d
    return convolution(width, WIDTH, 1)


def _perceptron(dims: int, width: int) -> nn.Sequential:
    return nn.Sequential(_pointwise(dims, width), nn.LeakyReLU(), _pointwise(dims, WIDTH))
