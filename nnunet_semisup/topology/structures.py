"""Find the structures of a map: what its components are born and die with over all thresholds.

0-dimensional persistent homology of the superlevel sets {p >= t}, whose pixels are connected by
their faces (4-connected; gudhi's V-construction, whose vertices are the pixels).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nnunet_semisup.errors import UserError

Ints = npt.NDArray[np.int64]
Levels = npt.NDArray[np.integer]

STEPS = 256
"""Levels of a map are numbers from 0 to this: probabilities in steps of 1/256."""
INSTALL = "pip install gudhi"


class Structures(NamedTuple):
    """Hold the structures of a map, the most persistent first.

    Attributes:
        birth: ``(n,)`` pixel of each peak, in the flattened map.
        death: ``(n,)`` pixel of the saddle where it joins a higher one; of the highest, which joins
            none, the lowest pixel of the map.
        persistence: ``(n,)`` levels between both, 1 or more.
        found: structures there were before the less persistent ones were cut off.
    """

    birth: Ints
    death: Ints
    persistence: Ints
    found: int


def require_gudhi(trainer: str) -> None:
    """Refuse a training for which gudhi is not installed.

    Args:
        trainer: name of its class.

    Raises:
        UserError: it is not; says how to install it.
    """
    if find_spec("gudhi") is None:
        raise UserError(
            f"{trainer} finds structures by gudhi, which is not installed; nothing was written. "
            f"Install it: {INSTALL} (or this package with its extra 'topology')"
        )


def structures(levels: Levels, most: int = STEPS) -> Structures:
    """Return the structures of a map.

    Args:
        levels: ``(h, w)`` from 0 to :data:`STEPS`.
        most: structures to keep, the most persistent ones.
    """
    import gudhi

    # Superlevel sets of a map are sublevel sets of what is missing to its greatest value. gudhi
    # numbers the pixels in Fortran's order: of the transposed map, that is C's of the map itself.
    cells = gudhi.CubicalComplex(vertices=(STEPS - levels.astype(np.float64)).T)
    cells.compute_persistence(min_persistence=0)
    regular, essential = cells.vertices_of_persistence_pairs()
    pairs = np.asarray(regular[0] if regular else (), np.int64).reshape(-1, 2)
    highest = np.array([[essential[0][0], levels.argmin()]], np.int64)
    birth, death = np.concatenate((highest, pairs)).T
    height = levels.astype(np.int64).ravel()
    persistence = height[birth] - height[death]
    kept = np.flatnonzero(persistence > 0)
    order = kept[np.lexsort((birth[kept], -persistence[kept]))][:most]
    return Structures(birth[order], death[order], persistence[order], len(kept))
