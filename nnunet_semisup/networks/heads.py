"""Further outputs that stand on a decoder's features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from nnunet_semisup.networks.decode import decode, encode
from nnunet_semisup.networks.training_network import Outputs, TrainingNetwork


class WithHeads(TrainingNetwork):
    """Add named heads to the predicting network, such as a distance map or a projection.

    They are part of this module, so a teacher that follows it has them as well.

    Args:
        predictor: the network that predicts, with an encoder and a decoder.
        heads: name to module, each called with features ``(B, C, *spatial)``.
        stage: decoder stage that they stand on, shallow to deep; 0 has full resolution.
    """

    def __init__(self, predictor: Any, heads: Mapping[str, nn.Module], stage: int = 0) -> None:
        super().__init__(predictor)
        self.heads = nn.ModuleDict(heads)
        self.stage = stage

    def forward(self, x: Tensor) -> Outputs:
        """Return the predictor's logits, and as ``parts`` each head's output by its name.

        Args:
            x: images ``(B, C, *spatial)``.
        """
        decoded = decode(self.predictor.decoder, encode(self.predictor, x))
        features = decoded.features[self.stage]
        return Outputs(decoded.logits, {name: head(features) for name, head in self.heads.items()})
