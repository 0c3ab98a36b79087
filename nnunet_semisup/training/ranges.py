"""Ranges of hyper-parameters, written into their annotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Between:
    """Allow numbers from ``low`` to ``high``, both included."""

    low: float
    high: float

    def allows(self, value: Any) -> bool:
        """Tell whether a number is in the range; NaN never is."""
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    @property
    def demand(self) -> str:
        """Say what a value must be."""
        return f"between {self.low:g} and {self.high:g}"


@dataclass(frozen=True)
class AtLeast:
    """Allow numbers from ``low`` on."""

    low: float

    def allows(self, value: Any) -> bool:
        """Tell whether a number is in the range; NaN never is."""
        return bool(value >= self.low)

    def __str__(self) -> str:
        return f"at least {self.low:g}"

    @property
    def demand(self) -> str:
        """Say what a value must be."""
        return str(self)


Fraction = Annotated[float, Between(0, 1)]
"""A share, a probability, or a part of the training."""
Weight = Annotated[float, AtLeast(0)]
"""The weight of a loss term, or a rate."""
Count = Annotated[int, AtLeast(1)]
"""A number of things of which at least one is needed."""
