"""The plan's U-Net with class texts at its bottleneck, and what training adds to it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_semisup.networks.multiplanar import READINGS, MultiplanarTextInteraction
from nnunet_semisup.networks.seeding import draw_seed, seeded
from nnunet_semisup.networks.training import TrainingNetwork

TEXT_DIM = 512
"""Width of CLIP's and BiomedCLIP's text features; a checkpoint's own width is taken from it."""


class TextUNet(nn.Module):
    """A U-Net whose bottleneck interacts with class texts; the network that predicts.

    The texts travel as a buffer, so prediction needs no text model. Text width and reading are
    taken from the state dict that is loaded; one without texts makes this the plain U-Net. Within
    a network in training nothing is replaced (an optimizer would not know the new parameters): a
    state dict of another width or reading is an error there.

    Every interaction of a network starts from the same random numbers and leaves those of the
    parts built after it alone.

    Args:
        base: a network with ``encoder`` (features shallow to deep) and ``decoder``.
        grid: spatial size of the bottleneck.
        num_classes: output channels, one text each.
        text_dim: width of a text.
        reading: of the interaction, see :mod:`nnunet_semisup.networks.multiplanar`.

    Attributes:
        in_training: whether this is part of a network in training.
    """

    interaction: MultiplanarTextInteraction | None
    text_features: Tensor | None

    def __init__(
        self,
        base: Any,
        grid: Sequence[int],
        num_classes: int,
        text_dim: int = TEXT_DIM,
        reading: str = "paper",
    ) -> None:
        super().__init__()
        self.encoder: Any = base.encoder
        self.decoder: Any = base.decoder
        self.grid = tuple(grid)
        self.num_classes = num_classes
        self.in_training = False
        self._interaction_seed = draw_seed()
        self.set_text(text_dim, reading)
        self.register_load_state_dict_pre_hook(_adapt_to_state)

    def set_text(self, text_dim: int | None, reading: str = "paper") -> None:
        """Makes a fresh interaction for texts of another width or reading; ``None``: no text."""
        self.interaction = None
        self.register_buffer("text_features", None)
        if text_dim is None:
            return
        device = next(self.encoder.parameters()).device
        channels = self.encoder.output_channels[-1]
        with seeded(self._interaction_seed):
            self.interaction = MultiplanarTextInteraction(channels, text_dim, self.grid, reading)
        self.interaction.to(device)
        self.register_buffer("text_features", torch.zeros(self.num_classes, text_dim).to(device))

    def encode(self, x: Tensor, text: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """Features for a decoder, the deepest after the interaction, and the deepest before it.

        Args:
            x: ``(B, C, *spatial)``.
            text: ``(K, D)`` unit vectors; ``None`` takes the buffer.
        """
        features = list(self.encoder(x))
        visual = features[-1]
        features[-1] = self.interact(visual, text)
        return features, visual

    def interact(self, visual: Tensor, text: Tensor | None = None) -> Tensor:
        """The deepest features after the interaction, of the same shape.

        Args:
            visual: ``(B, C, *grid)`` of the encoder.
            text: ``(K, D)`` unit vectors; ``None`` takes the buffer.
        """
        if self.interaction is None:
            return visual
        chosen = self.text_features if text is None else text
        assert chosen is not None
        return self.interaction(visual, chosen * chosen.shape[-1] ** 0.5)

    def forward(self, x: Tensor, text: Tensor | None = None) -> Any:
        """Logits as the U-Net gives them, a list under deep supervision."""
        return self.decoder(self.encode(x, text)[0])


def _adapt_to_state(module: Any, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Gives ``module`` the text width and reading of the state dict about to be loaded."""
    text = state.get(f"{prefix}text_features")
    then: tuple[Any, Any] = (None, "paper")
    if text is not None:
        then = text.shape[-1], READINGS[int(state[f"{prefix}interaction.reading_number"])]
    own = module.text_features
    now = (None, "paper") if own is None else (own.shape[-1], module.interaction.reading)
    if then == now:
        return
    if module.in_training:
        errors = rest[-1]
        errors.append(f"text width and reading are {now} in training and {then} in the state dict")
    else:
        module.set_text(*then)


class TextOutput(NamedTuple):
    """A training pass.

    Attributes:
        logits: one entry a decoder asked for, each a list under deep supervision.
        visual: ``(B, D, *grid)`` projected features of the encoder's last stage, or ``None``.
    """

    logits: tuple[Any, ...]
    visual: Tensor | None


class TextTrainingNetwork(TrainingNetwork):
    """The predicting network with a second decoder and the projection to the texts' space.

    Args:
        predictor: the network that predicts.
        two_decoders: add a second decoder that differs in upsampling.
    """

    def __init__(self, predictor: TextUNet, two_decoders: bool) -> None:
        super().__init__(predictor)
        predictor.in_training = True
        self.second_decoder = other_decoder(predictor.decoder) if two_decoders else None
        self.projection: nn.Module | None = None
        if predictor.text_features is not None:
            width = predictor.text_features.shape[-1]
            encoder = predictor.encoder
            self.projection = encoder.conv_op(encoder.output_channels[-1], width, 1)

    def forward(
        self, x: Tensor, text: Tensor | None = None, decoders: Sequence[int] | None = None
    ) -> Any:
        """Logits of the first decoder, or with ``decoders`` a :class:`TextOutput`.

        Args:
            x: ``(B, C, *spatial)``.
            text: ``(K, D)`` unit vectors; ``None`` takes the buffer.
            decoders: which to run, of 0 and 1.
        """
        if decoders is None:
            return self.predictor(x, text)
        features, visual = self.predictor.encode(x, text)
        both: tuple[Any, Any] = (self.predictor.decoder, self.second_decoder)
        logits = tuple(both[number](features) for number in decoders)
        return TextOutput(logits, None if self.projection is None else self.projection(visual))


class ResizeConv(nn.Module):
    """Upsampling by (bi-, tri-)linear interpolation and a convolution.

    Args:
        transposed: the transposed convolution it stands in for; gives channels and stride.
        block: a block of the same decoder; gives normalisation and nonlinearity.
    """

    def __init__(self, transposed: Any, block: Any) -> None:
        super().__init__()
        three = isinstance(transposed, nn.ConvTranspose3d)
        self.mode = "trilinear" if three else "bilinear"
        self.scale = tuple(float(s) for s in transposed.stride)
        conv = nn.Conv3d if three else nn.Conv2d
        channels = transposed.out_channels
        self.conv = conv(transposed.in_channels, channels, 3, padding=1)
        self.norm = copy.deepcopy(getattr(block, "norm", None)) or nn.Identity()
        self.nonlin = copy.deepcopy(getattr(block, "nonlin", None)) or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)`` to ``(B, C', *spatial * stride)``."""
        x = F.interpolate(x, scale_factor=self.scale, mode=self.mode)
        return self.nonlin(self.norm(self.conv(x)))


def other_decoder(decoder: Any) -> nn.Module:
    """A decoder like ``decoder`` with interpolation instead of transposed convolutions.

    Two decoders that differ in upsampling disagree where they are uncertain (MC-Net, MICCAI 2021,
    arXiv 2103.02911, section 2.2). Weights are fresh, initialised as nnU-Net does.

    Args:
        decoder: of one of the plans' U-Nets; left as it is.
    """
    encoder = decoder.encoder
    other: Any = copy.deepcopy(decoder, {id(encoder): encoder})
    del other.encoder
    other.transpconvs = nn.ModuleList(
        ResizeConv(transposed, stage.convs[0])
        for transposed, stage in zip(other.transpconvs, other.stages, strict=True)
    )
    other.apply(InitWeights_He(1e-2))
    return other
