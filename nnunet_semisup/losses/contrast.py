"""Representations that are drawn to their class, to their like, and away from the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_semisup.losses.precision import float32


@float32
def class_means(maps: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of each class ``(K, D)``, and ``(K,)`` bool whether it has any voxel.

    Args:
        maps: ``(B, D, *spatial)``.
        classes: ``(B, K, *spatial)`` bool.
    """
    inside = classes.flatten(2).float()
    number = inside.sum((0, 2))
    total = torch.einsum("bkn,bdn->kd", inside, maps.flatten(2))
    return total / number.clamp_min(1)[:, None], number > 0


@float32
def class_contrast(
    anchors: Tensor,
    there: Tensor,
    positives: Tensor,
    known: Tensor,
    negatives: Tensor,
    filled: Tensor,
    temperature: float,
) -> Tensor:
    """Return InfoNCE of each class's anchors, their mean over anchors and then over classes.

    ARCO (You et al., NeurIPS 2023, arXiv 2302.01735), equation E.2: ``-log(exp(a.p / T) /
    (exp(a.p / T) + sum over n of exp(a.n / T)))`` with cosines. Classes without anchors, positive
    or negatives do not count; 0 if none has all three.

    Args:
        anchors: ``(K, N, D)``.
        there: ``(K, N)`` bool, which of them are to be used.
        positives: ``(K, D)``; ``known`` ``(K,)`` bool, which of them exist.
        known: see ``positives``.
        negatives: ``(K, M, D)``, shared by the class's anchors.
        filled: ``(K, M)`` bool, which of them exist.
        temperature: of the softmax.
    """
    anchors, positives, negatives = (
        F.normalize(x, dim=-1) for x in (anchors, positives, negatives)
    )
    own = anchors @ positives[:, :, None]
    others = (anchors @ negatives.transpose(1, 2)).masked_fill(~filled[:, None], -torch.inf)
    logits = torch.cat([own, others], 2) / temperature
    loss = logits.logsumexp(2) - logits[:, :, 0]
    used = there & (known & filled.any(1))[:, None]
    number = used.sum(1)
    means = (loss * used).sum(1) / number.clamp_min(1)
    return means.sum() / (number > 0).sum().clamp_min(1)


@float32
def cell_means(maps: Tensor, valid: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the mean of each cell of a grid over its valid voxels, and how much of it is valid.

    Args:
        maps: ``(B, D, *spatial)``.
        valid: ``(B, 1, *spatial)`` bool, of any resolution.
        grid: cells along each axis.

    Returns:
        ``(B * cells, D)`` and ``(B * cells,)``, the latter in [0, 1].
    """
    pool: Any = F.adaptive_avg_pool3d if maps.ndim == 5 else F.adaptive_avg_pool2d
    share = pool(valid.float(), maps.shape[2:])
    share, total = pool(share, grid), pool(maps * share, grid)
    rows = total / share.clamp_min(1e-8)
    return rows.flatten(2).transpose(1, 2).flatten(0, 1), share.flatten()


@float32
def relational_divergence(
    student: Tensor,
    teacher: Tensor,
    others: Tensor,
    filled: Tensor,
    weights: Tensor,
    student_temperature: float,
    teacher_temperature: float,
) -> Tensor:
    """Return how differently student and teacher compare rows with others, a weighted mean.

    ARCO, equation E.1, with both as softmax over cosines. The divergence is KL(teacher || student),
    as in ISD (Tejankar et al., ICCV 2021, arXiv 2012.09259) and ARCO's released code; the text of
    ARCO has the arguments the other way round.

    Args:
        student: ``(N, D)``.
        teacher: ``(N, D)``, of another view of the same; no gradient.
        others: ``(M, D)``.
        filled: ``(M,)`` bool, which of them exist; 0 if none does.
        weights: ``(N,)``, not negative; 0 if all are 0.
        student_temperature: of the softmax of the student's cosines.
        teacher_temperature: of the teacher's.
    """
    others = F.normalize(others, dim=-1)

    def compare(rows: Tensor, temperature: float) -> Tensor:
        logits = F.normalize(rows, dim=-1) @ others.T / temperature
        return logits.masked_fill(~filled, -1e4).log_softmax(1)

    asked, taught = compare(student, student_temperature), compare(teacher, teacher_temperature)
    taught = taught.detach()
    return _weighted((taught.exp() * (taught - asked)).sum(1), weights)


@float32
def neighbour_distance(
    rows: Tensor, reference: Tensor, others: Tensor, filled: Tensor, weights: Tensor, number: int
) -> Tensor:
    """Return the mean of ``2 - 2 cosine`` of rows and the neighbours of what they stand for.

    ARCO's nearest-neighbour term, as mean shift (Koohpayegani et al., ICCV 2021, arXiv
    2105.07269).

    Args:
        rows: ``(N, D)``, which the gradient flows to.
        reference: ``(N, D)``, whose neighbours they are drawn to.
        others: ``(M, D)`` among which neighbours are looked for.
        filled: ``(M,)`` bool, which of them exist; 0 if none does.
        weights: ``(N,)``, not negative; 0 if all are 0.
        number: of neighbours, the nearest by cosine.
    """
    rows, reference, others = (F.normalize(x, dim=-1) for x in (rows, reference, others))
    likeness = (reference @ others.T).masked_fill(~filled, -torch.inf)
    nearest = likeness.topk(min(number, len(others)), dim=1).indices
    used = filled[nearest]
    distance = 2.0 - 2.0 * (rows @ others.T).gather(1, nearest)
    mean = (distance * used).sum(1) / used.sum(1).clamp_min(1)
    return _weighted(mean, weights)


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp_min(1e-8)
