"""A field of Gaussians in place of the last segmentation layer, and contours at the entrance.

[0] GauSAM, NeurIPS 2025 (OpenReview 7LulWI9QJy), whose code is not public; formulas that its text
    could not be had with are reconstructions.

A head in the manner of [0]. Not GauSAM: there is no segment-anything encoder and no box around the
object, which [0] takes as input in training and prediction. nnU-Net's encoder and decoder stay, and
so do the other layers under deep supervision. Deviates further: contour energy comes from a
pyramid of splines with directional wedges in place of the contourlet transform, and enters once, at
full resolution, in place of once a transformer block; drift follows from the decoder's features,
which have the energy in them, so that nothing passes from module to module beside the features; the
field is normalised, so that it is no darker between centres; the layers behind it see the pixel's
own features as well, as what is thinner than a cell is lost in the field, and are narrower; a
softmax mixes templates in training, too, without the Gumbel noise of [0], so that training and
prediction are the same; templates are fewer and narrower, as 7 x 7 Gaussians around a pixel reach
three cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_semisup.architectures.insert import Insert
from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.contours import ContourPropagation
from nnunet_semisup.networks.followed import Followed
from nnunet_semisup.networks.gaussian_field import GaussianFieldHead

CELL = 4
"""Pixels along the side of a cell."""
TEMPLATES = 64
"""[0] has 500, of which 64 evenly spaced ones have the same mixtures at the start."""
LEVELS, DIRECTIONS = 3, 4


def options(architecture: Mapping[str, Any], patch_size: Sequence[int]) -> dict[str, Any]:
    """Return sizes of the head and of the pyramid.

    Raises:
        UserError: the network's first stage already reduces the resolution.
    """
    first = architecture["strides"][0]
    if any(stride != 1 for stride in first):
        raise UserError(
            f"gaussian_field needs a first stage at full resolution; this one has strides {first}."
        )
    return {"cell": CELL, "templates": TEMPLATES, "levels": LEVELS, "directions": DIRECTIONS}


def install(network: Any, cell: int, templates: int, levels: int, directions: int) -> None:
    """Put contour energy behind the first module that sees the image, and the head at the end.

    Args:
        network: 2D U-Net of dynamic_network_architectures.
        cell: pixels along the side of a cell.
        templates: their number.
        levels: of the pyramid.
        directions: of each of its bands.
    """
    encoder, layers = network.encoder, network.decoder.seg_layers
    stem = getattr(encoder, "stem", None)
    first = encoder.stages[0] if stem is None else stem
    entrance = next(m for m in first.modules() if isinstance(m, encoder.conv_op))
    channels = encoder.output_channels[0] if stem is None else stem.output_channels
    contours = ContourPropagation(entrance.in_channels, channels, levels, directions)
    followed = Followed(first, contours, sees_input=True)
    if stem is None:
        encoder.stages[0] = followed
    else:
        encoder.stem = followed
    last = layers[-1]
    layers[-1] = GaussianFieldHead(last.in_channels, last.out_channels, cell, templates)


GAUSSIAN_FIELD = Insert("gaussian_field", options, install, is_head=True)
