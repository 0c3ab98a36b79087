"""One pass of the student, and what a step makes of the terms that methods yield."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._pytree import tree_map_only

from nnunet_semisup.networks.decode import Decoded
from nnunet_semisup.training.batches import Terms


class Pass(NamedTuple):
    """Hold one pass of the student.

    Attributes:
        logits: of the predicting network, a list under deep supervision.
        parts: what else the training network gives: other members, heads, codes.
        terms: loss terms that the pass itself brings (class texts), already weighted.
        guests: tensors for those who take part in any method, by name.
    """

    logits: Any
    parts: Any
    terms: Terms
    guests: Terms

    @property
    def members(self) -> tuple[Any, ...]:
        """Everything with logits: each member of a network with several, else the pass itself."""
        parts = self.parts if isinstance(self.parts, tuple) else ()
        return tuple(part for part in parts if isinstance(part, Decoded)) or (self,)

    def split(self, number: int) -> tuple[Pass, Pass]:
        """Return the pass of the first ``number`` images, with its terms, and that of the rest."""
        first, rest = self._part(slice(number)), self._part(slice(number, None))
        return first._replace(terms=self.terms), rest

    def _part(self, images: slice) -> Pass:
        def part(tensor: Tensor) -> Tensor:
            return tensor[images]

        logits, parts = tree_map_only(Tensor, part, (self.logits, self.parts))
        return Pass(logits, parts, {}, {})


def propagate(
    groups: Iterator[Terms], autocast: Callable[[], Any], scaler: Any, zero: Tensor
) -> tuple[Tensor, Terms]:
    """Propagate groups of loss terms back, each before the next is computed.

    Args:
        groups: gives dictionaries of scalars; names with ``_`` are only logged.
        autocast: makes the context in which they are computed.
        scaler: of the gradient, or ``None``.
        zero: 0 on the device.

    Returns:
        The sum of all losses, and every term under its name in the log; without gradient.
    """
    total = zero
    logged: Terms = {}
    while True:
        with autocast():
            terms = next(groups, None)
        if terms is None:
            return total, logged
        losses = [term for name, term in terms.items() if not name.startswith("_")]
        loss = sum(losses, start=zero)
        if loss.requires_grad:
            (loss if scaler is None else scaler.scale(loss)).backward()
        total = total + loss.detach()
        logged.update({name.lstrip("_"): term.detach() for name, term in terms.items()})
