"""Orders in which to annotate scans, and random ones to compare with.

[1] nnActive, TMLR 2025, on patches: no method reliably beats random choice that is aware of the
    foreground.
[2] ClaSP PE, TMLR 2026, on patches: entropy stratified by class, with noise, does. Here on whole
    scans and without noise: few are chosen at a time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from nnunet_semisup.scoring.cases import CaseScores

Scores = Sequence[CaseScores]


def by_disagreement(scores: Scores, _: int) -> list[str]:
    """Order by disagreement of folds or mirrored images; first where nobody sees anything."""

    def key(one: CaseScores) -> float:
        return math.inf if one.disagreement is None else one.disagreement

    return [one.case for one in sorted(scores, key=key, reverse=True)]


def by_entropy(scores: Scores, _: int) -> list[str]:
    """Order by expected entropy of the foreground."""
    return [one.case for one in sorted(scores, key=lambda one: one.entropy, reverse=True)]


def stratified(scores: Scores, _: int) -> list[str]:
    """Take the classes in turn, and for each the scan in which it is most doubtful ([2])."""
    classes = list(scores[0].entropy_of) if scores else []
    left = list(scores)
    order: list[str] = []
    while left:
        name = classes[len(order) % len(classes)]
        chosen = max(left, key=lambda one: one.entropy_of[name])
        left.remove(chosen)
        order.append(chosen.case)
    return order


def at_random(scores: Scores, seed: int) -> list[str]:
    """Shuffle."""
    order = sorted(one.case for one in scores)
    random.Random(seed).shuffle(order)
    return order


def with_foreground(scores: Scores, seed: int) -> list[str]:
    """Draw a class, and then a scan of those in which it is predicted ([1]); others come last."""
    draw = random.Random(seed)
    left = sorted(scores, key=lambda one: one.case)
    order: list[str] = []
    while left:
        present = sorted({name for one in left for name, v in one.volume_of.items() if v > 0})
        chosen = draw.choice(present) if present else None
        fitting = [one for one in left if chosen is None or one.volume_of[chosen] > 0]
        case = draw.choice(fitting)
        left.remove(case)
        order.append(case.case)
    return order


ORDERS: dict[str, Callable[[Scores, int], list[str]]] = {
    "stratified": stratified,
    "entropy": by_entropy,
    "disagreement": by_disagreement,
    "foreground": with_foreground,
    "random": at_random,
}
"""By name; each takes the scores and a seed. The last two are controls."""


def places(scores: Scores, seed: int) -> dict[str, dict[str, int]]:
    """Return each case's place, from 1, in every order.

    Args:
        scores: of the cases.
        seed: of the random orders.
    """
    orders = {name: order(scores, seed) for name, order in ORDERS.items()}
    return {
        one.case: {name: order.index(one.case) + 1 for name, order in orders.items()}
        for one in scores
    }
