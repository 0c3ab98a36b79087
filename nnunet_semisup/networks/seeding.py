"""Initial values of a part that do not depend on what was built before it, nor change what comes.

torch draws all initial values from one generator, so a part of another size shifts the values of
every part built after it. A network and its control could then not start equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def draw_seed() -> int:
    """Draw a number from the CPU's generator."""
    return int(torch.randint(2**31, (), device="cpu"))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let the CPU's random numbers follow from ``seed`` inside, and go on as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the GPUs as well, which are not restored.
        torch.default_generator.manual_seed(seed)
        yield
