"""Size and shape of what was predicted, against those of the labeled cases.

With few labeled cases their standard deviation says little; what lies outside of all they show is
compared instead. Sources: implausible anatomy as the first filter of pseudo-labels (FLARE 2025,
task 3), largest components and large discrepancies (how VISTA3D's authors chose theirs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage


@dataclass(frozen=True)
class Shape:
    """Hold what is measured of a class in one label map; lengths in mm, 0 where it is absent.

    Attributes:
        volume: in mm^3 (mm^2 of pictures).
        extent: diagonal of the largest component's bounding box.
        fragments: part of the class outside of its largest component, 0 to 1.
    """

    volume: float
    extent: float
    fragments: float

    def to_json(self) -> dict[str, float]:
        """Return the values by name."""
        return asdict(self)


def shape_of(mask: npt.NDArray[np.bool_], spacing: Sequence[float]) -> Shape:
    """Measure a mask ``(*spatial)`` with ``spacing`` in mm; voxels touch by their faces."""
    if not mask.any():
        return Shape(0.0, 0.0, 0.0)
    components, _ = ndimage.label(mask)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    largest = int(sizes.argmax())
    box = ndimage.find_objects(components)[largest - 1]
    lengths = [(s.stop - s.start) * step for s, step in zip(box, spacing, strict=True)]
    total = int(sizes.sum())
    return Shape(
        total * math.prod(spacing), math.hypot(*lengths), float(1 - sizes[largest] / total)
    )


@dataclass(frozen=True)
class Unlike:
    """Say how far a case lies outside of the labeled ones.

    Attributes:
        missing: classes that every labeled case has and this one has not.
        factor: by which a size is outside, at most; 1 where none is.
        fragments: by how much more of a class is scattered than in any labeled case.
        reasons: in words, one for each class and measure outside.
    """

    missing: tuple[str, ...]
    factor: float
    fragments: float
    reasons: tuple[str, ...]


def unlike_labeled(found: Mapping[str, Shape], labeled: Mapping[str, Sequence[Shape]]) -> Unlike:
    """Compare the classes of one case with those of the labeled cases.

    Args:
        found: by class.
        labeled: by class, one a labeled case.

    Returns:
        What is outside. Classes that no labeled case has are not compared.
    """
    missing, factors, scattered, reasons = [], [1.0], [0.0], []
    for name, shape in found.items():
        known = [one for one in labeled.get(name, ()) if one.volume > 0]
        if not known:
            continue
        if shape.volume == 0:
            if len(known) == len(labeled[name]):
                missing.append(name)
                reasons.append(f"{name}: not predicted; every labeled case has it")
            continue
        for measure in ("volume", "extent"):
            factor, text = _outside(measure, shape, known)
            factors.append(factor)
            reasons += [f"{name}: {text}"] if text else []
        more = shape.fragments - max(one.fragments for one in known)
        if more > 0:
            scattered.append(more)
            reasons.append(
                f"{name}: {shape.fragments:.0%} of it outside its largest part, labeled at most "
                f"{max(one.fragments for one in known):.0%}"
            )
    return Unlike(tuple(missing), max(factors), max(scattered), tuple(reasons))


def _outside(measure: str, shape: Shape, known: Sequence[Shape]) -> tuple[float, str]:
    """Return by what factor a measure is outside of the labeled ones' range, and in words."""
    value = getattr(shape, measure)
    values: list[Any] = [getattr(one, measure) for one in known]
    low, high = min(values), max(values)
    if low <= value <= high:
        return 1.0, ""
    factor = value / high if value > high else low / value
    end, word = ("greatest", "times") if value > high else ("smallest", "times less than")
    return factor, f"{measure} {factor:.1f} {word} the {end} labeled one"
