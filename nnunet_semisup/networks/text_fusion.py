"""Text joins each voxel of a bottleneck: VCLIPSeg's voxel-wise prompts.

[0] Li et al., VCLIPSeg, MICCAI 2024: the voxel-wise prompts module.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nnunet_semisup.networks.seeding import draw_seed, seeded

FUSION = "fusion"
WIDTH = 64
HIDDEN = 16


class ClassTextFusion(nn.Module):
    """Give each voxel a mixture of the classes' texts, beside its own features ([0]).

    With x the features of a voxel and t_c the text of class c: ``w(x) = softmax over c`` of a small
    network's outputs, and the result is a convolution of x and ``sum over c of w_c(x) P t_c``, with
    P linear. Deviates from the released code: weights for as many classes as there are (there, 2),
    and one group's normalisation in place of the batch's, for batches of one and maps of one voxel.

    Args:
        channels: of the feature map.
        text_dim: of the texts.
        classes: number of texts.
        dims: spatial dimensions.
        number: stored beside the weights, so that a state dict tells which interaction it is of.
    """

    reading = FUSION

    def __init__(
        self, channels: int, text_dim: int, classes: int, dims: int, number: int = 0
    ) -> None:
        super().__init__()
        with seeded(draw_seed()):  # What is drawn after it depends on no text's width.
            self.text_projection = nn.Linear(text_dim, channels)
        conv: Any = nn.Conv3d if dims == 3 else nn.Conv2d
        self.reduce = _block(conv, channels, WIDTH)
        self.weigh = nn.Sequential(conv(WIDTH, HIDDEN, 1), nn.GELU(), conv(HIDDEN, classes, 1))
        self.fuse = _block(conv, 2 * channels, channels)
        self.register_buffer("reading_number", torch.tensor(number))

    def weights(self, features: Tensor) -> Tensor:
        """Return each voxel's weights of the classes, ``(B, K, *spatial)``, which add up to 1."""
        return self.weigh(self.reduce(features)).softmax(1)

    def forward(self, features: Tensor, text: Tensor) -> Tensor:
        """Return the map with the texts fused in.

        Args:
            features: ``(B, channels, *spatial)``.
            text: ``(K, text_dim)``.
        """
        projected = self.text_projection(text)
        mixed = torch.einsum("bk...,kc->bc...", self.weights(features), projected)
        return self.fuse(torch.cat([features, mixed.to(features.dtype)], 1))


def _block(conv: Any, inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        conv(inputs, outputs, 3, padding=1), nn.GroupNorm(1, outputs), nn.LeakyReLU()
    )
