"""The plan's U-Net with class texts at its bottleneck, and what training adds to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_semisup.networks.multiplanar import READINGS as MULTIPLANAR
from nnunet_semisup.networks.multiplanar import MultiplanarTextInteraction
from nnunet_semisup.networks.seeding import draw_seed, seeded
from nnunet_semisup.networks.text_fusion import FUSION, ClassTextFusion
from nnunet_semisup.networks.training_network import Outputs, TrainingNetwork

TEXT_DIM = 512
"""Width of CLIP's and BiomedCLIP's text features; a checkpoint's own width is taken from it."""
READINGS = (*MULTIPLANAR, FUSION)
"""How texts act on the bottleneck; the position is what a checkpoint stores."""


class TextUNet(nn.Module):
    """Let class texts act on a U-Net's bottleneck; the network that predicts.

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
        reading: one of :data:`READINGS`; see :mod:`nnunet_semisup.networks.multiplanar` and
            :mod:`nnunet_semisup.networks.text_fusion`.

    Attributes:
        in_training: whether this is part of a network in training.
        text: ``(K, D)`` unit vectors of the pass that is being made in training.
        visual: its deepest features before the interaction.

    Raises:
        TypeError: the base changes its features itself; the interaction would undo that.
    """

    interaction: MultiplanarTextInteraction | ClassTextFusion | None
    text_features: Tensor | None
    text: Tensor | None = None
    visual: Tensor | None = None

    def __init__(
        self,
        base: Any,
        grid: Sequence[int],
        num_classes: int,
        text_dim: int = TEXT_DIM,
        reading: str = "paper",
    ) -> None:
        super().__init__()
        if hasattr(base, "encode"):
            raise TypeError(f"class texts cannot be added to {type(base).__name__}")
        self.encoder: Any = base.encoder
        self.decoder: Any = base.decoder
        self.grid = tuple(grid)
        self.num_classes = num_classes
        self.in_training = False
        self._interaction_seed = draw_seed()
        self.set_text(text_dim, reading)
        self.register_load_state_dict_pre_hook(_adapt_to_state)

    def set_text(self, text_dim: int | None, reading: str = "paper") -> None:
        """Make a fresh interaction for texts of another width or reading; ``None``: no text."""
        self.interaction = None
        self.register_buffer("text_features", None)
        if text_dim is None:
            return
        device = next(self.encoder.parameters()).device
        channels = self.encoder.output_channels[-1]
        with seeded(self._interaction_seed):
            if reading == FUSION:
                self.interaction = ClassTextFusion(
                    channels, text_dim, self.num_classes, len(self.grid), READINGS.index(FUSION)
                )
            else:
                self.interaction = MultiplanarTextInteraction(
                    channels, text_dim, self.grid, reading
                )
        self.interaction.to(device)
        self.register_buffer("text_features", torch.zeros(self.num_classes, text_dim).to(device))

    def take_text(self, features: Tensor, reading: str) -> None:
        """Take texts ``(K, D)`` into the buffer, with an interaction of their width and reading."""
        assert self.interaction is not None
        if features.shape[-1] != TEXT_DIM or reading != self.interaction.reading:
            self.set_text(features.shape[-1], reading)
        assert self.text_features is not None
        self.text_features.copy_(features)

    def stays(self, weights: Mapping[str, Tensor]) -> list[str]:
        """Return the parts that another training's weights must not replace.

        Its texts are those of its classes, and its interaction may read them otherwise.

        Args:
            weights: of a network that predicted there, by their names.
        """
        name = "interaction.reading_number"
        there, here = weights.get(name), self.state_dict().get(name)
        alike = there is not None and here is not None and int(there) == int(here)
        return ["text_features"] if alike else ["text_features", "interaction"]

    def encode_with(self, x: Tensor, text: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Return features for a decoder, the deepest after the interaction, and that before it.

        Args:
            x: ``(B, C, *spatial)``.
            text: ``(K, D)`` unit vectors; ``None`` takes the buffer.
        """
        features = list(self.encoder(x))
        visual = features[-1]
        features[-1] = self.interact(visual, text)
        return features, visual

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return features for a decoder, with :attr:`text` or, without one, the buffer.

        With :attr:`text`, the deepest ones before the interaction are left in :attr:`visual`.
        """
        features, visual = self.encode_with(x, self.text)
        if self.text is not None:
            self.visual = visual
        return features

    def interact(self, visual: Tensor, text: Tensor | None = None) -> Tensor:
        """Return the deepest features after the interaction, of the same shape.

        Args:
            visual: ``(B, C, *grid)`` of the encoder.
            text: ``(K, D)`` unit vectors; ``None`` takes the buffer.
        """
        if self.interaction is None:
            return visual
        chosen = self.text_features if text is None else text
        assert chosen is not None
        return self.interaction(visual, chosen * chosen.shape[-1] ** 0.5)

    def forward(self, x: Tensor) -> Any:
        """Return logits as the U-Net gives them, a list under deep supervision."""
        return self.decoder(self.encode(x))


def _adapt_to_state(module: Any, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Give ``module`` the text width and reading of the state dict about to be loaded."""
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


def text_readers(network: nn.Module) -> list[TextUNet]:
    """Return the networks within a network in training that read texts, the predicting one first.

    Decoders on one encoder read them together, several networks each for itself.
    """
    return [module for module in network.modules() if isinstance(module, TextUNet)]


class WithText(TrainingNetwork):
    """Give texts to all that read them in a network, and project the predictor's features.

    Args:
        inner: the predicting :class:`TextUNet`, or a training network around it.
    """

    def __init__(self, inner: Any) -> None:
        nn.Module.__init__(self)
        self.inner = inner
        self.readers = text_readers(inner)
        encoder: Any = self.encoder
        width = self.predictor.text_features.shape[-1]
        self.projection = encoder.conv_op(encoder.output_channels[-1], width, 1)

    @property
    def predictor(self) -> Any:
        """The network that predicts."""
        return getattr(self.inner, "predictor", self.inner)

    def networks(self) -> list[nn.Module]:
        """Return the inner networks; the projection belongs to the first, which predicts."""
        inner = self.inner.networks() if isinstance(self.inner, TrainingNetwork) else [self.inner]
        return [nn.ModuleList([inner[0], self.projection]), *inner[1:]]

    def forward(self, x: Tensor, text: Tensor | None = None, **how: Any) -> Any:
        """Return what the inner network gives, and as guest ``visual`` the projected features.

        Args:
            x: ``(B, C, *spatial)``.
            text: ``(K, D)`` unit vectors; ``None``, as of a teacher, takes those in the networks'
                buffers, and projects nothing.
            how: for the inner network.
        """
        if text is None:
            return self.inner(x, **how)
        for reader in self.readers:
            reader.text = text
        output = self.inner(x, **how)
        visual = self.projection(self.predictor.visual)
        for reader in self.readers:
            reader.text = reader.visual = None
        if not isinstance(output, Outputs):
            output = Outputs(output)
        return output._replace(guests={**output.guests, "visual": visual})
