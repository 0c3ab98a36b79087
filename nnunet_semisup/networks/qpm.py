"""QPM, the quantized perturbation module: tokens swap their code for another one by distance.

[0] VQ-Seg, NeurIPS 2025, arXiv 2601.10124, section 3.2: a token with code ``i`` keeps it with
    probability ``1 - epsilon`` and takes code ``j != i`` with probability
    ``epsilon * exp(-d(c_i, c_j)) / sum_k!=i exp(-d(c_i, c_k))``.

Deviates from [0] by default (mode ``calibrated``): the distance is the squared L2 distance over
a temperature, chosen so that the replacement distribution has a given perplexity. Without it the
distribution depends on the scale of the codebook: uniform for small codes, a swap with the nearest
code for large ones. Mode ``paper`` is [0] with the L2 distance, ``official`` the squared L2
distance of the released code, ``uniform`` a control that ignores distance.

No loop over codes, no gradient, and nothing waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MODES = ("calibrated", "paper", "official", "uniform")

MAX_ENTRIES = 2**27
"""Entries of the largest tokens x codes matrix made at once; more tokens go in chunks."""
BLOCK = 64
"""Codes whose weights are summed before one of them is looked for."""
MAX_ENTRIES_CPU = 2**21
"""The same on a CPU, whose caches hold a matrix of this size."""


def most_entries(device: torch.device) -> int:
    """Return how many entries a tokens x codes matrix may have at once."""
    return MAX_ENTRIES_CPU if device.type == "cpu" else MAX_ENTRIES


def replacement_logits(
    rows: Tensor, codebook: Tensor, mode: str, temperature: Tensor | None = None
) -> Tensor:
    """Return log-weights with which each code replaces each of ``rows``, up to a constant.

    Args:
        rows: ``(N, C)`` codes to be replaced.
        codebook: ``(K, C)``.
        mode: one of :data:`MODES`.
        temperature: scalar, in units of squared distance; for ``calibrated`` only.

    Returns:
        ``(N, K)`` float32; the caller excludes a code's own column.
    """
    if mode == "uniform":
        return rows.new_zeros(rows.shape[0], codebook.shape[0])
    if mode == "paper":
        return -torch.cdist(rows, codebook)
    if mode == "calibrated" and temperature is not None:
        rows, norms = rows / temperature, codebook.square().sum(1) / temperature
    elif mode == "official":
        norms = codebook.square().sum(1)
    else:
        raise ValueError(f"mode {mode!r} is not one of {MODES}, or its temperature is missing")
    # Minus the squared distance but for the row's own norm, which the softmax ignores.
    with torch.autocast(rows.device.type, enabled=False):
        return torch.addmm(-norms, rows, codebook.T, alpha=2.0)


def _squared_distances(rows: Tensor, codebook: Tensor) -> Tensor:
    with torch.autocast(rows.device.type, enabled=False):
        products = rows @ codebook.T
    squared = rows.square().sum(1, keepdim=True) - 2.0 * products + codebook.square().sum(1)
    return squared.clamp_min_(0.0)


def _exclude_self(logits: Tensor, indices: Tensor) -> Tensor:
    return logits.scatter_(1, indices[:, None], float("-inf"))


@torch.no_grad()
def transition_matrix(
    codebook: Tensor, epsilon: float, mode: str, temperature: Tensor | None = None
) -> Tensor:
    """Return ``(K, K)`` probabilities of going from code ``i`` (row) to ``j``; rows sum to 1."""
    codebook = codebook.float()
    size = codebook.shape[0]
    identity = torch.eye(size, device=codebook.device)
    if size == 1:
        return identity
    logits = replacement_logits(codebook, codebook, mode, temperature)
    own = torch.arange(size, device=codebook.device)
    replacement = torch.softmax(_exclude_self(logits, own), 1)
    return (1.0 - epsilon) * identity + epsilon * replacement


@torch.no_grad()
def perturb(
    indices: Tensor,
    codebook: Tensor,
    epsilon: Tensor | float,
    mode: str = "calibrated",
    temperature: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Swap codes; the expected share of swapped tokens is exactly ``epsilon``.

    Two uniform numbers are drawn a token, one deciding whether and one deciding where to, so with
    the same generator state a smaller ``epsilon`` swaps a subset of the tokens to the same codes.

    Args:
        indices: int64 of any shape, in ``[0, K)``.
        codebook: ``(K, C)``; with ``K`` = 1 nothing can change.
        epsilon: in [0, 1]; a float, or a tensor that broadcasts to ``indices``.
        mode: one of :data:`MODES`.
        temperature: scalar for ``calibrated``, from :func:`calibrate_temperature`.
        generator: of the uniform numbers; the device's own by default.

    Returns:
        Perturbed indices, same shape; ``indices`` itself where ``epsilon`` is the number 0.
    """
    if (not isinstance(epsilon, Tensor) and epsilon == 0) or codebook.shape[0] == 1:
        return indices
    codebook = codebook.float()
    flat = indices.reshape(-1)
    device = codebook.device
    chance = torch.rand(flat.shape[0], device=device, generator=generator)
    where_to = torch.rand(flat.shape[0], 1, device=device, generator=generator)
    step = max(1, most_entries(device) // codebook.shape[0])
    swapped = [
        _sample(part, draw, codebook, mode, temperature)
        for part, draw in zip(flat.split(step), where_to.split(step), strict=True)
    ]
    replaced = torch.cat(swapped).view_as(indices)
    return torch.where(chance.view_as(indices) < epsilon, replaced, indices)


def _sample(
    indices: Tensor, draw: Tensor, codebook: Tensor, mode: str, temperature: Tensor | None
) -> Tensor:
    """Draw one other code a token, by inverse-transform sampling: a block of codes, then one."""
    logits = replacement_logits(codebook[indices], codebook, mode, temperature)
    weights = torch.softmax(_exclude_self(logits, indices), 1)
    if excess := -weights.shape[1] % BLOCK:
        weights = F.pad(weights, (0, excess))
    blocks = weights.unflatten(1, (-1, BLOCK))
    shares = blocks.sum(2)
    cumulative = shares.cumsum(1)
    target = draw * cumulative[:, -1:]
    block = _first_above(cumulative, target)
    before = (cumulative - shares).gather(1, block)
    within = blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK))[:, 0].cumsum(1)
    chosen = (BLOCK * block + _first_above(within, target - before))[:, 0]
    chosen = chosen.clamp_max(codebook.shape[0] - 1)
    beyond = (indices == codebook.shape[0] - 1) & (chosen == indices)
    return torch.where(chosen == indices, torch.where(beyond, indices - 1, indices + 1), chosen)


def _first_above(cumulative: Tensor, target: Tensor) -> Tensor:
    """Return ``(N, 1)``, where ``(N, K)`` sums first exceed ``(N, 1)`` targets.

    A target that rounding lifts above all of them is given the last one that has a weight; sums
    that are not numbers, as of a training that has diverged, give the last one.
    """
    last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())
    last = last.clamp_max(cumulative.shape[1] - 1)
    return torch.minimum(torch.searchsorted(cumulative, target, right=True), last)


@torch.no_grad()
def calibrate_temperature(
    codebook: Tensor, perplexity: float, rows: int = 512, iterations: int = 30
) -> Tensor:
    """Return the temperature at which replacements have a mean perplexity of ``perplexity``.

    Bisection on the logarithm, on evenly spaced rows of the codebook, without leaving the device.
    The temperature scales with the squared codebook, so sampling does not depend on its scale.

    Args:
        codebook: ``(K, C)``.
        perplexity: effective number of codes that a code may turn into; it is cut off at
            ``0.9 (K - 1)``.
        rows: number of codes whose distributions are averaged.
        iterations: of the bisection.

    Returns:
        Scalar, in units of squared distance.
    """
    codebook = codebook.float()
    size, device = codebook.shape[0], codebook.device
    if size < 3:
        return torch.ones((), device=device)
    own = torch.linspace(0, size - 1, min(rows, size), device=device).long()
    squared = _squared_distances(codebook[own], codebook)
    scale = squared.mean().clamp_min(1e-12)
    goal = torch.full((), min(perplexity, 0.9 * (size - 1)), device=device).log()
    low, high = torch.full((), -12.0, device=device), torch.full((), 6.0, device=device)
    for _ in range(iterations):
        middle = (low + high) / 2
        log_p = torch.log_softmax(_exclude_self(-squared / (scale * middle.exp()), own), 1)
        entropy = -(log_p.exp() * log_p.clamp_min(-1e4)).sum(1).mean()
        low, high = (
            torch.where(entropy < goal, middle, low),
            torch.where(entropy < goal, high, middle),
        )
    return scale * ((low + high) / 2).exp()
