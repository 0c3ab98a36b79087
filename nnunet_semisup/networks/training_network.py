"""Parts that every network has in common that trains more than it predicts with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn


class Outputs(NamedTuple):
    """Hold results of a training-only network's pass; a plain predictor returns logits alone.

    Attributes:
        logits: of the predicting member, a list under deep supervision (full resolution first).
        parts: further results of the pass, such as other members or heads.
        guests: tensors for those who take part in any method, by their name. A dict: torch's
            distributed training (2.14) does not look into other mappings for what the loss uses.
    """

    logits: Any
    parts: Any = None
    guests: Mapping[str, Tensor] = {}


class TrainingNetwork(nn.Module):
    """Hold the predicting network; methods add the parts that only training needs.

    Everything goes through ``forward``, so that distributed training sees every parameter.

    Args:
        predictor: the network that predicts, with an encoder and a decoder.
    """

    def __init__(self, predictor: Any) -> None:
        super().__init__()
        self.predictor = predictor

    @property
    def encoder(self) -> nn.Module:
        """The predicting network's encoder."""
        return self.predictor.encoder

    @property
    def decoder(self) -> nn.Module:
        """The predicting network's decoder."""
        return self.predictor.decoder

    def networks(self) -> list[nn.Module]:
        """Return the networks in it, each with parts that belong to it; the predicting one first.

        Each has a gradient norm of its own: together, each would get a smaller share than alone.
        """
        return [self]
