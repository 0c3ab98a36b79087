"""Faults and warnings about a data set."""

from __future__ import annotations

from dataclasses import dataclass, field

from nnunet_semisup.errors import UserError


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as ``"1 fault"`` and ``"2 faults"``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass
class Findings:
    """Hold what is wrong with a data set: ``faults`` stop the conversion, ``warnings`` do not."""

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def raise_faults(self, title: str, consequence: str = ", nothing was written") -> None:
        """Stop with every fault in one list, if there is one.

        Args:
            title: what comes before the number of faults, such as ``"data has"``.
            consequence: what comes after it.

        Raises:
            UserError: there are faults.
        """
        if self.faults:
            listed = "\n".join(f"  - {fault}" for fault in self.faults)
            raise UserError(f"{title} {counted(len(self.faults), 'fault')}{consequence}.\n{listed}")
