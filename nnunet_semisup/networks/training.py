"""What every network has in common that trains more than it predicts with."""

from __future__ import annotations

from typing import Any

from torch import nn


class TrainingNetwork(nn.Module):
    """The predicting network; methods add the parts that only training needs.

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
