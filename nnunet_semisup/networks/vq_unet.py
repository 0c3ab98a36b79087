"""The plan's U-Net with vector-quantized deep stages, and what training adds to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.quantizer import Quantized, VectorQuantizer
from nnunet_semisup.networks.training_network import Outputs, TrainingNetwork

TOKENS = (50, 2048)
"""A stage is quantized if its feature map has between these many tokens a patch."""

PLAN_KEY = "vqseg_stages"
"""Key of a configuration in the plans that names the stages instead, for example ``[3, 4, 5]``."""


def stage_tokens(patch_size: Sequence[int], strides: Sequence[Sequence[int]]) -> list[int]:
    """Return the tokens a patch of each encoder stage, shallow to deep."""
    shape = np.array(patch_size)
    tokens = []
    for stride in strides:
        shape = np.ceil(shape / np.array(stride)).astype(int)
        tokens.append(int(np.prod(shape)))
    return tokens


def choose_stages(tokens: Sequence[int]) -> tuple[int, ...]:
    """Return the stages to quantize: at most the two deepest with a token count in :data:`TOKENS`.

    Where no stage fits, the deepest one. Stage 0 has the image's resolution and is never chosen.
    """
    low, high = TOKENS
    fitting = [s for s, count in enumerate(tokens) if s > 0 and low <= count <= high]
    return tuple(fitting[-2:]) or (len(tokens) - 1,)


def planned_stages(
    configuration: Mapping[str, Any], strides: Sequence[Sequence[int]]
) -> tuple[int, ...]:
    """Return the stages that the plans name, else those of :func:`choose_stages`.

    Stages are part of the network, so prediction has to know them: they come from the plans, which
    travel with a model.

    Args:
        configuration: dictionary of the configuration in the plans.
        strides: of the encoder stages, shallow to deep.

    Raises:
        UserError: the plans name a stage that is not there, none, or the image-resolution stage.
    """
    deepest = len(strides) - 1
    named = configuration.get(PLAN_KEY)
    if named is None:
        return choose_stages(stage_tokens(configuration["patch_size"], strides))
    stages = list(named) if isinstance(named, (list, tuple)) else []
    if not stages or not all(type(s) is int and 1 <= s <= deepest for s in stages):
        raise UserError(
            f"{PLAN_KEY}={named} in the plans must list encoder stages from 1 to {deepest}. "
            f"Correct it, or remove the key to quantize stages with {TOKENS[0]} to {TOKENS[1]} "
            "tokens a patch."
        )
    return tuple(sorted(set(stages)))


def codebook_size(tokens: int) -> int:
    """Return four codes a token, rounded to a power of two, between 512 and 2048."""
    return int(np.clip(2 ** round(np.log2(4 * tokens)), 512, 2048))


class VQOutput(NamedTuple):
    """Hold a training pass.

    Attributes:
        logits: what the U-Net gives, a list under deep supervision.
        quantized: one entry a quantized stage, shallow to deep.
    """

    logits: Any
    quantized: list[Quantized]


class VQUNet(nn.Module):
    """Pass a U-Net's deep encoder features through a codebook; the network that predicts.

    Args:
        base: a network with ``encoder`` (features shallow to deep) and ``decoder``.
        stages: encoder stages to quantize.
        sizes: codes of each of them.
        code_dim: width of a code.

    Raises:
        TypeError: the base changes its features itself; that would be undone.
    """

    def __init__(
        self, base: Any, stages: Sequence[int], sizes: Sequence[int], code_dim: int = 32
    ) -> None:
        super().__init__()
        if hasattr(base, "encode"):
            raise TypeError(f"quantizers cannot be added to {type(base).__name__}")
        self.encoder: Any = base.encoder
        self.decoder: Any = base.decoder
        self.stages = tuple(stages)
        self.quantizers = nn.ModuleList(
            VectorQuantizer(
                self.encoder.output_channels[stage], size, code_dim, self.encoder.conv_op
            )
            for stage, size in zip(stages, sizes, strict=True)
        )

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return features for a decoder, quantized."""
        return self.quantized(x, None, "calibrated")[0]

    def quantized(
        self, x: Tensor, epsilon: Tensor | None, mode: str
    ) -> tuple[list[Tensor], list[Quantized]]:
        """Return features for a decoder, and what happened at the quantized stages.

        Args:
            x: ``(B, C, *spatial)``.
            epsilon: share of tokens to perturb, in training mode; ``None`` for none.
            mode: of the perturbation.
        """
        features = list(self.encoder(x))
        results = []
        for stage, quantizer in zip(self.stages, self.quantizers, strict=True):
            result = quantizer(features[stage], epsilon, mode)
            features[stage] = result.features
            results.append(result)
        return features, results

    def tokens(self, x: Tensor) -> list[Tensor]:
        """Return tokens ``(B * n, D)`` of each quantized stage for images ``(B, C, *spatial)``."""
        features = self.encoder(x)
        pairs: Any = zip(self.stages, self.quantizers, strict=True)
        return [quantizer.tokenize(features[stage]).flatten(0, 1) for stage, quantizer in pairs]

    def forward(
        self,
        x: Tensor,
        epsilon: Tensor | None = None,
        mode: str = "calibrated",
        details: bool = False,
    ) -> Any:
        """Return logits as the U-Net gives them, or a :class:`VQOutput` with ``details``.

        Args:
            x: ``(B, C, *spatial)``.
            epsilon: share of tokens to perturb, in training mode; ``None`` for none.
            mode: of the perturbation.
            details: also return what happened at the quantized stages.
        """
        features, quantized = self.quantized(x, epsilon, mode)
        logits = self.decoder(features)
        return VQOutput(logits, quantized) if details else logits


def quantized_unet(network: Any, configuration_manager: Any) -> VQUNet:
    """Return a plan's U-Net with quantized deep stages.

    Args:
        network: of the plan.
        configuration_manager: nnU-Net's, of the configuration in training.

    Raises:
        UserError: as :func:`planned_stages`.
    """
    strides = configuration_manager.pool_op_kernel_sizes
    tokens = stage_tokens(configuration_manager.patch_size, strides)
    stages = planned_stages(configuration_manager.configuration, strides)
    return VQUNet(network, stages, [codebook_size(tokens[s]) for s in stages])


class ReconstructionDecoder(nn.Module):
    """Decode an image without skips, from post-quantization features to half resolution.

    VQ-Seg (arXiv 2601.10124), section 3.3; its architecture is not described there. The deeper
    quantized maps are upsampled to the shallowest one, then transposed convolutions go up to
    encoder stage 1.

    Args:
        encoder: of the U-Net, for channels, strides and operators.
        stages: quantized stages, shallow to deep.
        image_channels: channels to reconstruct.
    """

    def __init__(self, encoder: Any, stages: Sequence[int], image_channels: int) -> None:
        super().__init__()
        conv = encoder.conv_op
        transposed = nn.ConvTranspose3d if conv is nn.Conv3d else nn.ConvTranspose2d
        norm = nn.InstanceNorm3d if conv is nn.Conv3d else nn.InstanceNorm2d
        width = max(16, encoder.output_channels[stages[0]] // 2)
        layers: list[nn.Module] = [conv(sum(encoder.output_channels[s] for s in stages), width, 1)]
        for stage in range(stages[0], 1, -1):
            stride = encoder.strides[stage]
            narrower = max(16, width // 2)
            layers += [
                transposed(width, width, stride, stride),
                conv(width, narrower, 3, padding=1),
                norm(narrower, affine=True),
                nn.LeakyReLU(inplace=True),
            ]
            width = narrower
        layers.append(conv(width, image_channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return ``(B, C, *spatial at stage 1)`` from the clean post-quantization maps."""
        size = features[0].shape[2:]
        maps = [features[0], *(F.interpolate(f, size=size) for f in features[1:])]
        return self.layers(torch.cat(maps, 1))


class VQParts(NamedTuple):
    """Hold what a training pass has besides logits.

    Attributes:
        quantized: one entry a quantized stage, shallow to deep.
        image: the reconstruction ``(B, C, *spatial at stage 1)``, or ``None``.
        adapted: features for the foundation model's space, or ``None``.
    """

    quantized: list[Quantized]
    image: Tensor | None
    adapted: Tensor | None


class VQTrainingNetwork(TrainingNetwork):
    """Hold the predicting network with the heads that only training needs, in one module.

    Args:
        predictor: the network that predicts.
        image_channels: of the images to reconstruct; ``None`` for no image decoder.
        adapted_width: of a foundation model's features, to which a 1x1 convolution leads, or
            ``None``.
    """

    def __init__(
        self, predictor: VQUNet, image_channels: int | None, adapted_width: int | None
    ) -> None:
        super().__init__(predictor)
        encoder, stages = predictor.encoder, predictor.stages
        self.reconstruction: nn.Module | None = None
        self.adapter: nn.Module | None = None
        if image_channels is not None:
            self.reconstruction = ReconstructionDecoder(encoder, stages, image_channels)
        if adapted_width is not None:
            channels = encoder.output_channels[stages[0]]
            self.adapter = encoder.conv_op(channels, adapted_width, 1)

    def forward(
        self, x: Tensor, epsilon: Tensor | None = None, mode: str = "calibrated"
    ) -> Outputs:
        """Return logits and, as parts, a :class:`VQParts`.

        Args:
            x: ``(B, C, *spatial)``.
            epsilon: share of tokens to perturb, 0-d; ``None`` for none.
            mode: of the perturbation.
        """
        output = self.predictor(x, epsilon, mode, details=True)
        clean = [q.clean for q in output.quantized]
        image = None if self.reconstruction is None else self.reconstruction(clean)
        adapted = None if self.adapter is None else self.adapter(clean[0])
        return Outputs(output.logits, VQParts(output.quantized, image, adapted))
