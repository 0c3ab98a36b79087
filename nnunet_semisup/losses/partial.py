"""The loss of cases in which some classes were not annotated: on the others, with these merged.

[1] Shi et al., Marginal loss and exclusion loss for partially supervised multi-organ segmentation,
    Medical Image Analysis 2021, arXiv 2007.03868: where a label says background, the voxel may be
    background or any class that was not annotated, so that their probabilities are added up.

Any loss then is that of the merged logits. Of regions, which are questions of their own, those
that were not annotated are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_semisup.losses.targets import PseudoLabel, repeated

_NEVER = -1e4
"""Logit of what cannot be; float16 holds it."""


class Gaps(NamedTuple):
    """Say what of a batch's labels is not known.

    Attributes:
        annotated: ``(B, K)`` bool, which outputs of the network a patch's case has labels of; the
            background always.
        unknown: ``(B, 1, *spatial)`` bool, of regions ``(B, R, *spatial)``, where the label leaves
            open which of the other classes is there; under deep supervision a list.
        regions: outputs are overlapping regions.
    """

    annotated: Tensor
    unknown: Any
    regions: bool

    def at(self, level: int) -> Gaps:
        """Return what is not known at the resolution of one of a decoder's outputs."""
        return self._replace(unknown=self.unknown[level])

    def within(self, mask: Tensor) -> Gaps:
        """Return what is not known where ``mask``, bool and broadcastable, is true.

        As every result below, at full resolution alone.
        """
        return self._replace(unknown=self._full & mask)

    def rolled(self) -> Gaps:
        """Return the gaps in which each item is the one before it in the batch."""
        return self._replace(annotated=self.annotated.roll(1, 0), unknown=self._full.roll(1, 0))

    def repeated(self, number: int) -> Gaps:
        """Return the gaps of ``number`` items: those of the batch, from the first on again."""
        unknown = repeated(self._full, number)
        return self._replace(annotated=repeated(self.annotated, number), unknown=unknown)

    def resized(self, spatial: Sequence[int]) -> Gaps:
        """Return the gaps at the resolution of :meth:`PseudoLabel.resized`."""
        size = tuple(spatial)
        small = F.interpolate(self._full.float(), size, mode="nearest-exact") > 0
        return self._replace(unknown=small)

    @property
    def _full(self) -> Tensor:
        return self.unknown[0] if isinstance(self.unknown, (list, tuple)) else self.unknown

    def known_logits(self, output: Any) -> Any:
        """Return logits by which a loss of nnU-Net's target is one of what is known.

        ``output`` is ``(B, K, *spatial)``, under deep supervision a list.
        """
        if not isinstance(output, (list, tuple)):
            return _known(output, self.annotated, self.unknown, self.regions)
        return [
            _known(one, self.annotated, unknown, self.regions)
            for one, unknown in zip(output, self.unknown, strict=True)
        ]

    def filled(self, target: Any, probabilities: Tensor, confidence: float) -> tuple[Any, Gaps]:
        """Fill what is not known by a teacher where it is sure of a class that the label allows.

        Args:
            target: of nnU-Net, a list under deep supervision, full resolution first.
            probabilities: ``(B, K, *spatial)`` of the teacher, at full resolution.
            confidence: above which it is sure.

        Returns:
            The target, and what is still not known. Lower resolutions get the nearest voxel's.
        """
        sure, guess = _sure(probabilities, self.annotated, confidence, self.regions)
        if not isinstance(target, (list, tuple)):
            new, unknown = _fill(target, self.unknown, sure, guess)
            return new, self._replace(unknown=unknown)
        pairs = [
            _fill(one, unknown, sure, guess)
            for one, unknown in zip(target, self.unknown, strict=True)
        ]
        return [one for one, _ in pairs], self._replace(unknown=[open_ for _, open_ in pairs])


def gaps_of(target: Any, annotated: Tensor, regions: bool) -> Gaps:
    """Return what nnU-Net's target leaves open.

    Args:
        target: of nnU-Net, a list under deep supervision.
        annotated: ``(B, K)`` bool.
        regions: outputs are overlapping regions.
    """
    unknown = _each(target, lambda one: _unknown(one, annotated, regions))
    return Gaps(annotated, unknown, regions)


def leaving_open(
    loss: Callable[[Tensor, PseudoLabel], Tensor], *gaps: Gaps | None
) -> Callable[[Tensor, PseudoLabel], Tensor]:
    """Return a loss of labels that a method made, by which what they leave open may be anything.

    Args:
        loss: of ``(B, K, *spatial)`` logits and a label of their size.
        gaps: of the parts of the images, each of them within its part; ``None`` has none.
    """

    def of_what_is_known(logits: Tensor, label: PseudoLabel) -> Tensor:
        for part in gaps:
            if part is not None:
                logits = part.resized(logits.shape[2:]).known_logits(logits)
        return loss(logits, label)

    return of_what_is_known


def _each(value: Any, function: Any) -> Any:
    return [function(one) for one in value] if isinstance(value, (list, tuple)) else function(value)


def _wide(annotated: Tensor, like: Tensor) -> Tensor:
    return annotated.reshape(*annotated.shape, *[1] * (like.ndim - 2))


def _unknown(target: Tensor, annotated: Tensor, regions: bool) -> Tensor:
    if regions:
        shape = (*annotated.shape, *target.shape[2:])
        return (~_wide(annotated, target)).expand(shape)
    partly = ~annotated.all(1, keepdim=True)
    return (target == 0) & _wide(partly, target)


def _known(logits: Tensor, annotated: Tensor, unknown: Tensor, regions: bool) -> Tensor:
    others = ~_wide(annotated, logits)
    hidden = logits.masked_fill(unknown & others, _NEVER)
    if regions:
        return hidden
    known = _wide(annotated, logits)[:, 1:]
    candidates = torch.cat([logits[:, :1], logits[:, 1:].masked_fill(known, _NEVER)], 1)
    merged = candidates.float().logsumexp(1, keepdim=True).to(logits.dtype)
    background = torch.where(unknown, merged, logits[:, :1])
    return torch.cat([background, hidden[:, 1:]], 1)


def _sure(
    probabilities: Tensor, annotated: Tensor, confidence: float, regions: bool
) -> tuple[Tensor, Tensor]:
    """Return where a teacher is sure of what the label allows, bool, and of what, float."""
    if regions:
        sure = torch.maximum(probabilities, 1 - probabilities) > confidence
        return sure, (probabilities > 0.5).to(probabilities.dtype)
    highest, label = probabilities.max(1, keepdim=True)
    allowed = (~annotated).clone()
    allowed[:, 0] = True
    possible = _wide(allowed, probabilities).expand_as(probabilities).gather(1, label)
    return (highest > confidence) & possible, label.to(probabilities.dtype)


def _fill(target: Tensor, unknown: Tensor, sure: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
    """Return a target with what is sure, and what is left unknown, at the target's resolution."""
    size, channels = target.shape[2:], unknown.shape[1]
    certain = F.interpolate(sure.to(guess.dtype), size, mode="nearest-exact") > 0
    value = F.interpolate(guess, size, mode="nearest-exact").to(target.dtype)
    kept = torch.where(unknown & certain, value, target[:, :channels])
    return torch.cat([kept, target[:, channels:]], 1), unknown & ~certain
