"""Voxels drawn from each class by strata: ARCO's stratified group sampling, and what it is up to.

[0] You et al., Rethinking semi-supervised medical image segmentation: a variance-reduction
    perspective, NeurIPS 2023, arXiv 2302.01735, theorem 3.2 and lemma 3.1.

Of n candidates m are drawn. They are put in a row, stratum by stratum, which is cut into m equal
slices; the k-th draw takes the stratum of a random place of the k-th slice, and from this stratum a
candidate at random. Each candidate then is drawn m / n times in the mean, whatever m and n are, and
each stratum gets its share of the draws, to less than two of them. Draws are independent, and the
mean of a function h over them has the variance of theorem 3.2 of [0],
    Var = Var_plain - 1/m sum over k of 1/m (E_k h - E h)^2,
with E_k the mean over what the k-th draw may be. Where all shares are whole numbers, this is the
theorem's sum over strata; it is plain sampling's at most.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Sampling = Literal["sg", "sag", "ns"]
"""``sg``: by strata; ``sag``: also each draw's mirror image in its stratum; ``ns``: plain."""

BITS = 30
"""Of a random number, far more than the bits of any number of candidates."""


def strata_of(classes: Tensor, per_axis: int) -> Tensor:
    """Return the stratum of each voxel, ``(B * voxels,)`` int64: patch, cell of a grid, class.

    Args:
        classes: ``(B, K, *spatial)`` bool, one or, for regions, several classes a voxel.
        per_axis: cells along each axis, or as many as there are voxels.
    """
    batch, count, *spatial = classes.shape
    cells = [min(per_axis, size) for size in spatial]
    device, ones = classes.device, [1] * len(spatial)
    number = torch.arange(batch, device=device).view(-1, *ones)
    for axis, (size, parts) in enumerate(zip(spatial, cells, strict=True), 1):
        along = torch.arange(size, device=device) * parts // size
        number = number * parts + along.view([-1 if a == axis else 1 for a in range(len(ones) + 1)])
    # One class a voxel: its number. Regions: a sum, which tells most combinations apart.
    kind = (classes * torch.arange(count, dtype=torch.int32, device=device).view(-1, *ones)).sum(1)
    return (number * count**2 + kind).flatten()


@torch.no_grad()
def draw_stratified(
    candidates: Tensor, strata: Tensor, count: int, sampling: Sampling
) -> tuple[Tensor, Tensor]:
    """Draw ``count`` voxels of each class, with repetition, without waiting for the device.

    Args:
        candidates: ``(B, K, *spatial)`` bool, which voxels may be drawn for a class.
        strata: ``(B * voxels,)``, as of :func:`strata_of`.
        count: draws of a class, at least 1.
        sampling: with ``sag``, the first half of the draws is by strata, and the second half
            mirrors it: the candidate that is as far from the end of its stratum, row by row, as
            the first one is from the beginning.

    Returns:
        Their places ``(K, count)``, counted over the batch, and ``(K, count)`` bool, false where a
        class has no candidates.
    """
    order = strata.argsort(stable=True)
    sorted_strata = strata[order]
    ranks = candidates.transpose(0, 1).flatten(1)[:, order].cumsum(1, dtype=torch.int32)
    number = ranks[:, -1:].long()
    if sampling == "ns":
        chosen = _below(number.expand(-1, count))
    else:
        draws = count if sampling == "sg" else (count + 1) // 2
        low, high = _strata_of_slices(ranks, sorted_strata, draws)
        chosen = low + _below(high - low)
        if sampling == "sag":
            chosen = torch.cat([chosen, low + high - 1 - chosen], 1)[:, :count]
    return order[_place(ranks, chosen)], (number > 0).expand(-1, count)


def _strata_of_slices(ranks: Tensor, strata: Tensor, draws: int) -> tuple[Tensor, Tensor]:
    """Return first and last rank plus 1, ``(K, draws)``, of the stratum that each slice draws."""
    number = ranks[:, -1:].long()
    slices = torch.arange(draws, device=ranks.device)
    rank = (slices * number + _below(number.expand(-1, draws))) // draws
    drawn = strata[_place(ranks, rank)]
    before = F.pad(ranks, (1, 0)).long()  # Candidates before each place of the row.
    first, last = (torch.searchsorted(strata, drawn, right=right) for right in (False, True))
    return before.gather(1, first), before.gather(1, last)


def _below(sizes: Tensor) -> Tensor:
    """Return a random whole number below each of ``sizes``; 0 for 0."""
    return torch.randint(1 << BITS, sizes.shape, device=sizes.device) * sizes >> BITS


def _place(ranks: Tensor, rank: Tensor) -> Tensor:
    """Return where in the row the candidate of a rank, counted from 0, is; some place if nowhere.

    Args:
        ranks: ``(K, N)``, how many candidates there are up to each place.
        rank: ``(K, count)``.
    """
    return torch.searchsorted(ranks, (rank + 1).int()).clamp_max(ranks.shape[1] - 1)
