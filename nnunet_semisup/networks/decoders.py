"""Decoders like another one, which differ from it in weights and in how they upsample."""

from __future__ import annotations

import copy
from typing import Any, Literal

from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn
from torch.nn import functional as F

Upsampling = Literal["transposed", "linear", "nearest"]
INITIALISED_BY_NNUNET = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class ResizeConv(nn.Module):
    """Upsample by interpolation and a convolution.

    Args:
        transposed: the transposed convolution it stands in for; gives channels and stride.
        block: a block of the same decoder; gives normalisation and nonlinearity.
        nearest: repeat values, in place of (bi-, tri-)linear interpolation.
    """

    def __init__(self, transposed: Any, block: Any, nearest: bool = False) -> None:
        super().__init__()
        three = isinstance(transposed, nn.ConvTranspose3d)
        self.mode = "nearest" if nearest else "trilinear" if three else "bilinear"
        self.scale = tuple(float(s) for s in transposed.stride)
        conv = nn.Conv3d if three else nn.Conv2d
        channels = transposed.out_channels
        self.conv = conv(transposed.in_channels, channels, 3, padding=1)
        self.norm = copy.deepcopy(getattr(block, "norm", None)) or nn.Identity()
        self.nonlin = copy.deepcopy(getattr(block, "nonlin", None)) or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, *spatial)`` to ``(B, C', *spatial * stride)``."""
        x = F.interpolate(x, scale_factor=self.scale, mode=self.mode)
        return self.nonlin(self.norm(self.conv(x)))


def decoder_like(decoder: Any, upsampling: Upsampling) -> nn.Module:
    """Return a decoder like ``decoder``, with other upsampling and fresh weights.

    Decoders that differ in upsampling disagree where they are uncertain (MC-Net, MICCAI 2021,
    arXiv 2103.02911, section 2.2; MC-Net+, MedIA 2022, has all three). Convolutions start as
    nnU-Net initialises them, everything else as torch does. It does not hold the encoder, so its
    keys in a state dict are its own alone.

    Args:
        decoder: of one of the plans' U-Nets, which upsample by transposed convolutions; left as
            it is.
        upsampling: ``transposed`` convolutions as the plans' decoders have, or ``linear`` or
            ``nearest`` interpolation followed by a convolution.
    """
    encoder = decoder.encoder
    other: Any = copy.deepcopy(decoder, {id(encoder): encoder})
    del other.encoder
    if upsampling != "transposed":
        other.transpconvs = nn.ModuleList(
            ResizeConv(transposed, stage.convs[0], upsampling == "nearest")
            for transposed, stage in zip(other.transpconvs, other.stages, strict=True)
        )
    other.apply(InitWeights_He(1e-2))
    for module in other.modules():
        if hasattr(module, "reset_parameters") and not isinstance(module, INITIALISED_BY_NNUNET):
            module.reset_parameters()
    return other
