"""Loss of the structures of probability maps at the pixels where they are born and die.

[0] Xu et al., MATCH: Multi-faceted adaptive topo-consistency for semi-supervised histopathology
    segmentation, NeurIPS 2025, arXiv 2510.01532.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nnunet_semisup.losses.precision import float32
from nnunet_semisup.topology.critical import Critical, critical_pixels
from nnunet_semisup.topology.structures import STEPS, Levels


def levels_on_host(probs: Tensor) -> Levels:
    """Return probabilities in :data:`~nnunet_semisup.topology.structures.STEPS` steps as an array.

    The host waits for the device here, and nowhere else.
    """
    levels: Levels = (probs.detach() * STEPS).round().to(torch.int16).cpu().numpy()
    return levels


def structure_loss(
    probs: Tensor, least: int, carriers: Sequence[int] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean loss of the structures of some facets of an image, and numbers for the log.

    With p the probability of the foreground, b and d the pixels of birth and death: a consistent
    structure costs ``(1 - p(b))^2 + p(d)^2``, so that it stands out of what is around it; any other
    one ``(p(b) - p(d))^2``, so that it vanishes. (The summary of [0] has ``p(b)^2 + (1 - p(d))^2``,
    which is the same of the filtration 1 - p; of p, it would push the peaks down.)

    Args:
        probs: ``(facets, classes, h, w)`` of one image, of the foreground's classes or regions.
        least: facets in a row in which a structure must be found to be consistent.
        carriers: facets whose structures cost; all by default. No gradient flows into others.
    """
    chosen = range(len(probs)) if carriers is None else carriers
    critical = critical_pixels(levels_on_host(probs), least, chosen)
    consistent = float(critical.consistent.mean()) if len(critical.consistent) else 0.0
    counts = (
        ("consistent", consistent),
        ("structures", len(critical.birth)),
        ("cut", critical.cut),
    )
    log = {name: torch.tensor(float(value), device=probs.device) for name, value in counts}
    return loss_at(probs, critical), log


@float32
def loss_at(probs: Tensor, critical: Critical) -> Tensor:
    """Return the weighted loss of structures; 0, with a gradient of 0, where there are none.

    Args:
        probs: ``(facets, classes, h, w)``.
        critical: the pixels.
    """

    def moved(values: Any) -> Tensor:
        return torch.as_tensor(values).to(probs.device, non_blocking=True)

    flat = probs.flatten()
    birth, death = (flat.gather(0, moved(pixels)) for pixels in (critical.birth, critical.death))
    stands_out = (1 - birth).square() + death.square()
    costs = torch.where(moved(critical.consistent), stands_out, (birth - death).square())
    return (costs * moved(critical.weight)).sum()
