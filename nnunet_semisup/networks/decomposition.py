"""A U-Net that sees the structure of an image, and the noise beside it in training."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from nnunet_semisup.losses.decomposition import LOG_VARIANCES, Gaussian
from nnunet_semisup.networks.training_network import Outputs, TrainingNetwork

STRUCTURE_BLOCKS, NOISE_BLOCKS = 4, 2
"""Residual blocks of both networks (BayeSeg: 10 and 6, of 64 channels)."""
FIRST_LOG_VARIANCE = -4.0
"""Logarithm of both variances before the first step."""


class ResidualBlock(nn.Module):
    """Add two convolutions' result to their input.

    Args:
        width: channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, width, h, w)`` to the same shape."""
        return x + self.layers(x)


class GaussianNetwork(nn.Module):
    """Give each voxel of an image a mean and a variance, at full resolution.

    At first the variances are the same everywhere, and the means those of ``around_image``.

    Args:
        channels: of the image.
        width: of the layers.
        blocks: number of residual blocks.
        around_image: the mean is the image and what the layers add; otherwise what they give.
    """

    def __init__(self, channels: int, width: int, blocks: int, around_image: bool) -> None:
        super().__init__()
        self.around_image = around_image
        last = nn.Conv2d(width, 2 * channels, 1)
        for parameter in last.parameters():
            nn.init.normal_(parameter, std=1e-2)
        body = [ResidualBlock(width) for _ in range(blocks)]
        self.layers = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), *body, last)

    def forward(self, image: Tensor) -> Gaussian:
        """Return mean and log-variance, float32, for images ``(B, C, h, w)``."""
        mean, logarithm = self.layers(image).float().chunk(2, 1)
        if self.around_image:
            mean = image.float() + mean
        return Gaussian(mean, (FIRST_LOG_VARIANCE + logarithm).clamp(*LOG_VARIANCES))


class StructureUNet(nn.Module):
    """Segment an image's structure in place of the image; the network that predicts.

    In training the U-Net sees a sample of the structure, in evaluation its mean.

    Args:
        base: a 2D network with ``encoder`` (features shallow to deep) and ``decoder``.
        channels: of the images.

    Raises:
        TypeError: the base changes its features itself; that would be undone.
    """

    def __init__(self, base: Any, channels: int) -> None:
        super().__init__()
        if hasattr(base, "encode"):
            raise TypeError(f"a structure network cannot be put before {type(base).__name__}")
        self.encoder: Any = base.encoder
        self.decoder: Any = base.decoder
        width = self.encoder.output_channels[0]
        self.structure = GaussianNetwork(channels, width, STRUCTURE_BLOCKS, around_image=True)

    def encode_structure(self, x: Tensor) -> tuple[Gaussian, list[Tensor]]:
        """Return the structure of images ``(B, C, h, w)``, and features for a decoder."""
        structure = self.structure(x)
        seen = structure.sample() if self.training else structure.mean
        return structure, list(self.encoder(seen))

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return features for a decoder, shallow to deep."""
        return self.encode_structure(x)[1]

    def forward(self, x: Tensor) -> Any:
        """Return logits as the U-Net gives them, a list under deep supervision."""
        return self.decoder(self.encode(x))


class Decomposed(NamedTuple):
    """Hold what a training pass has besides logits.

    Attributes:
        structure: of the images.
        noise: of the images.
        features: the deepest ones of the encoder, without gradient.
    """

    structure: Gaussian
    noise: Gaussian
    features: Tensor


class DecomposingNetwork(TrainingNetwork):
    """Infer the noise beside the structure that the predicting network sees.

    Args:
        predictor: the network that predicts.
        channels: of the images.
    """

    def __init__(self, predictor: StructureUNet, channels: int) -> None:
        super().__init__(predictor)
        width = predictor.encoder.output_channels[0]
        self.noise = GaussianNetwork(channels, width, NOISE_BLOCKS, around_image=False)

    def networks(self) -> list[nn.Module]:
        """Return the predicting network and that of the noise."""
        return [self.predictor, self.noise]

    def forward(self, x: Tensor) -> Outputs:
        """Return logits and, as parts, a :class:`Decomposed`, for images ``(B, C, h, w)``."""
        structure, features = self.predictor.encode_structure(x)
        decomposed = Decomposed(structure, self.noise(x), features[-1].detach())
        return Outputs(self.predictor.decoder(features), decomposed)
