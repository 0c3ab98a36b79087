"""Projected features of drawn voxels, and their attraction to prototypes of their class."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nnunet_semisup.losses.prototypes import (
    at_voxels,
    class_probabilities,
    classes_of,
    draw_voxels,
    of_own_class,
    prototype_distance,
)
from nnunet_semisup.losses.targets import PseudoLabel, pseudo_label
from nnunet_semisup.networks.class_memory import ClassMemory

WIDTH = 32
"""Of the projected features (SS-Net's released code)."""
KEPT = 32
"""Features of a class in the memory (SS-Net's released code)."""
DRAWN = 4096
"""Voxels of a class, at most, whose features are compared."""


class Drawn(NamedTuple):
    """Hold voxels drawn from each class.

    Attributes:
        places: ``(K, N)``, as of :func:`~nnunet_semisup.losses.prototypes.draw_voxels`.
        there: ``(K, N)`` bool, which of them are of the class.
        projected: ``(K, N, D)``, their projected features.
    """

    places: Tensor
    there: Tensor
    projected: Tensor


class ClassPrototypes(nn.Module):
    """Compare features of a decoder with the surest ones of their class that labels confirmed.

    SS-Net (Wu et al., MICCAI 2022, arXiv 2203.01324): a projection, a memory of
    projected features of each class, and a prediction of these from projected features. It works on
    drawn voxels, so it is trained outside of the network, and in distributed training each process
    remembers its own patches. Layer normalisation in place of batch normalisation: drawn voxels of
    one patch are alike.

    Args:
        width: channels of the features.
        outputs: channels of the logits.
        regions: sigmoid channels instead of softmax.
    """

    def __init__(self, width: int, outputs: int, regions: bool) -> None:
        super().__init__()
        self.regions = regions
        self.classes = outputs + regions
        self.projection = _perceptron(width)
        self.prediction = _perceptron(WIDTH)
        self.memory = ClassMemory(self.classes, KEPT, WIDTH)

    def draw(self, features: Tensor, label: PseudoLabel) -> Drawn:
        """Draw voxels of each class at random and project their features.

        Args:
            features: ``(B, width, *spatial)``.
            label: of the same voxels; those without weight are not drawn.
        """
        places, there = draw_voxels(classes_of(label, self.classes, self.regions), DRAWN)
        return Drawn(places, there, self.projection(at_voxels(features, places)))

    @torch.no_grad()
    def remember(self, drawn: Drawn, logits: Tensor) -> None:
        """Put into the memory what of each class is predicted rightly, the surest first.

        Args:
            drawn: of labeled patches.
            logits: ``(B, C, *spatial)`` of the same patches.
        """
        label = pseudo_label(logits, self.regions, None)
        predicted = classes_of(label, self.classes, self.regions)
        sure = torch.where(predicted, class_probabilities(logits, self.regions), -torch.inf)
        scores = of_own_class(sure, drawn.places).masked_fill(~drawn.there, -torch.inf)
        numbers = torch.arange(self.classes, device=scores.device)[:, None].expand_as(scores)
        self.memory.push(drawn.projected.flatten(0, 1), numbers.flatten(), scores.flatten())

    def distance(self, drawn: Drawn) -> Tensor:
        """Return how far drawn features are from the memory of their class."""
        rows = self.prediction(drawn.projected)
        return prototype_distance(rows, drawn.there, *self.memory.per_class())


def _perceptron(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)
    )
