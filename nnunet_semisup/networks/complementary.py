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

    def forward(
        self, x: Tensor, share: float = 0.0, first: Sequence[Tensor] | None = None
    ) -> Outputs:
        """Return the predictor's logits and, as its parts, the factors of the channels.

        Args:
            x: ``(B, C, *spatial)``.
            share: of the images whose channels are dropped, where they are first views.
            first: the factors of the first views, where these are the second ones.
        """
        features = encode(self.predictor, x)
        factors = None
        if first is not None:
            factors = [2 - factor for factor in first]
        elif share > 0:
            factors = channel_factors(features, share)
        if factors is not None:
            pairs = zip(features, factors, strict=True)
            features = [stage * factor.to(stage.dtype) for stage, factor in pairs]
        return Outputs(self.predictor.decoder(features), factors)


def channel_factors(features: Sequence[Tensor], share: float) -> list[Tensor]:
    """Return what the channels of first views are multiplied by: 0 or 2, or 1 in whole images.

    The channels of second views get 2 less that, so that each is in one view or in the other with
    the same probability, drawn for each image and stage. ([0] has the same width and mask at all
    stages.) Nothing waits for the device.

    Args:
        features: of the stages, each ``(B, C, *spatial)``.
        share: of the images; the number of the others, which stay whole, is rounded down.

    Returns:
        Of each stage ``(B, C, 1, ...)``.
    """
    images, device = features[0].shape[0], features[0].device
    whole = torch.rand(images, 1, device=device).argsort(0) < int(images * (1 - share))
    factors = []
    for stage in features:
        kept = torch.rand(images, stage.shape[1], device=device) < 0.5
        factor = torch.where(whole, 1.0, 2.0 * kept)
        factors.append(factor.view(*factor.shape, *[1] * (stage.ndim - 2)))
    return factors
