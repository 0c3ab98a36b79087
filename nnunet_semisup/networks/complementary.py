"""Complementary channel dropout between encoder and decoder: two views see other halves.

[0] Yang et al., UniMatch V2, TPAMI 2025, arXiv 2410.10777.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nnunet_semisup.networks.decode import encode
from nnunet_semisup.networks.training_network import Outputs, TrainingNetwork


class ComplementaryDropout(TrainingNetwork):
    """Let two views of the same images be told from complementary channels, in training ([0]).

    It has no weights of its own; the predicting network itself knows nothing of it.

    Args:
        predictor: the network that predicts, with an encoder and a decoder.
    """

    def forward(self, x: Tensor, share: float = 0.0) -> Outputs:
        """Return the predictor's logits.

        Args:
            x: ``(B, C, *spatial)``, or with a ``share`` the ``(2 B, C, *spatial)`` first views and
                then second ones.
            share: of the pairs of views, whose channels are dropped.
        """
        features = encode(self.predictor, x)
        if share > 0:
            features = drop_complementary(features, share)
        return Outputs(self.predictor.decoder(features))


def drop_complementary(features: Sequence[Tensor], share: float) -> list[Tensor]:
    """Drop channels of first views, and of second ones those that the first keep; double the rest.

    Each channel is in one view or in the other with the same probability, drawn for each pair and
    stage. ([0] has the same width and mask at all stages.) Nothing waits for the device.

    Args:
        features: of the stages, each ``(2 B, C, *spatial)``, first views before second ones.
        share: of the pairs; the number of the others, which stay as they are, is rounded down.
    """
    pairs, device = features[0].shape[0] // 2, features[0].device
    kept = int(pairs * (1 - share))
    whole = (torch.rand(pairs, 1, device=device).argsort(0) < kept).repeat(2, 1)
    dropped = []
    for stage in features:
        first = torch.rand(pairs, stage.shape[1], device=device) < 0.5
        factor = torch.where(whole, 1.0, 2.0 * torch.cat([first, ~first]))
        shape = (*factor.shape, *[1] * (stage.ndim - 2))
        dropped.append(stage * factor.view(shape).to(stage.dtype))
    return dropped
