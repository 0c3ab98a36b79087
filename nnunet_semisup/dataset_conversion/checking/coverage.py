"""Unlabeled scans that lie outside of what the labeled ones show.

Few labeled scans say little about how far scans vary by nature, so that nothing is assumed about
it: what lies beyond the range of the labeled ones counts when it is farther away than any labeled
scan is from the others, within bounds on what matters to a training.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from nnunet_semisup.dataset_conversion.cases import CaseFacts, DatasetForm, Subset
from nnunet_semisup.dataset_conversion.checking.channel_order import exchanged_channels
from nnunet_semisup.dataset_conversion.checking.intensities import (
    Display,
    display_of,
)
from nnunet_semisup.preparation.orientation import PlacedScan, axis_codes, common_axes

SPACING, EXTENT, INTENSITIES = "voxel size", "size", "intensities"
_LEAST = {SPACING: float(np.log(1.5)), EXTENT: float(np.log(1.5)), INTENSITIES: 0.25}
"""How far a scan is outside before it matters: by a factor, or by standard deviations of a scan."""
_LEAST_ON_ONE_SCALE = 0.5
"""The same of channels that nnU-Net shows on one scale: exposures and kernels differ by nature."""
_MOST = 2
"""Times that, which is outside however much labeled scans differ."""
_SIDES = ("LR", "AP", "IS")


@dataclass(frozen=True)
class Trait:
    """Hold one property of all scans: a row of numbers a scan, NaN where it has none.

    Attributes:
        kind: :data:`SPACING`, :data:`EXTENT` or :data:`INTENSITIES`.
        name: the axis or the channel.
        labeled: of shape ``(labeled scans, numbers)``, in ``unit`` or logarithms.
        unlabeled: likewise.
        unit: of what a person reads.
        least: how far outside matters.
        shown: from a number to what a person reads.
    """

    kind: str
    name: str
    labeled: np.ndarray
    unlabeled: np.ndarray
    unit: str
    least: float
    shown: Callable[[np.ndarray], np.ndarray] = np.exp

    @cached_property
    def low(self) -> np.ndarray:
        """Return the lowest number that a labeled scan has, ``(numbers,)``."""
        return np.nanmin(self.labeled, axis=0)

    @cached_property
    def high(self) -> np.ndarray:
        """Return the highest number that a labeled scan has, ``(numbers,)``."""
        return np.nanmax(self.labeled, axis=0)

    @cached_property
    def limit(self) -> float:
        """Return how far outside an unlabeled scan may be: more, the fewer are labeled."""
        rows = self.labeled[~np.isnan(self.labeled).any(axis=1)]
        natural = 0.0
        if len(rows) > 1:
            natural = float(beyond(rows, *_range_of_the_others(rows)).max())
        return min(max(natural, self.least * (1 + 1 / len(rows))), _MOST * self.least)

    @cached_property
    def distances(self) -> np.ndarray:
        """Return how far each unlabeled scan is outside of the labeled ones' range."""
        return beyond(self.unlabeled, self.low, self.high)

    @property
    def outside(self) -> np.ndarray:
        """Return which unlabeled scans are outside, ``(unlabeled scans,)``."""
        within: np.ndarray = np.nan_to_num(self.distances) <= self.limit
        return ~within

    def farthest(self, number: int) -> int:
        """Return which number of an unlabeled scan is the farthest outside."""
        row = self.unlabeled[number]
        return int(np.maximum(self.low - row, row - self.high).argmax())


def beyond(rows: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return how far rows of numbers are outside of a range, in the mean of a row's numbers."""
    distances: np.ndarray = np.maximum(np.maximum(low - rows, rows - high), 0).mean(axis=-1)
    return distances


def _range_of_the_others(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each row, the lowest and the highest numbers of all other rows."""
    ordered = np.sort(rows, axis=0)
    return (
        np.where(rows == ordered[0], ordered[1], ordered[0]),
        np.where(rows == ordered[-1], ordered[-2], ordered[-1]),
    )


@dataclass(frozen=True)
class Coverage:
    """Hold labeled and unlabeled scans side by side.

    Attributes:
        labeled: their names.
        unlabeled: their names.
        traits: what was compared; every row is in the order of the names.
        exchanged: for unlabeled scans whose channels look exchanged: what each looks like.
        axes: by scan, where its axes point; empty for pictures.
    """

    labeled: Sequence[str]
    unlabeled: Sequence[str]
    traits: Sequence[Trait]
    exchanged: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    axes: Mapping[str, str] = field(default_factory=dict)

    def outside(self, trait: Trait) -> list[int]:
        """Return numbers of the scans outside, the farthest first; not those of exchanged ones."""
        found = [
            number
            for number in map(int, np.flatnonzero(trait.outside))
            if trait.kind != INTENSITIES or self.unlabeled[number] not in self.exchanged
        ]
        return sorted(found, key=lambda number: -trait.distances[number])

    @property
    def all_within(self) -> bool:
        """Return whether no unlabeled scan differs in anything, the axes included."""
        alike = len(set(self.axes.values())) < 2 and not self.exchanged
        return alike and not any(self.outside(trait) for trait in self.traits)


def compare_scans(
    facts: Sequence[CaseFacts], form: DatasetForm, hidden: Collection[str] = ()
) -> Coverage | None:
    """Compare the unlabeled scans with the labeled ones; ``None`` without any of either.

    Args:
        facts: all cases; those with faults are passed over.
        form: of the data set.
        hidden: labeled cases whose labels a training does not see, which count as unlabeled.
    """
    channels = len(form.channel_names)
    sound = [f for f in facts if f.geometry and not f.faults and len(f.intensities) == channels]
    unlabeled = [f for f in sound if f.case.subset is Subset.UNLABELED or f.case.id in hidden]
    labeled = [f for f in sound if f.case.subset is Subset.LABELED and f.case.id not in hidden]
    if not labeled or not unlabeled:
        return None
    axes = {
        f.case.id: axis_codes(f.geometry.direction) for f in (*labeled, *unlabeled) if f.geometry
    }
    displays = _displays(labeled, form)
    known, other = ([f.intensities for f in cases] for cases in (labeled, unlabeled))
    orders = exchanged_channels(known, other, displays, form.components > 1)
    names = [f.case.id for f in unlabeled]
    return Coverage(
        [f.case.id for f in labeled],
        names,
        [*_placed(labeled, unlabeled, axes), *_shown(labeled, unlabeled, displays, form)],
        {name: order for name, order in zip(names, orders, strict=True) if order},
        axes,
    )


def _displays(labeled: Sequence[CaseFacts], form: DatasetForm) -> list[Display]:
    """Return how each channel is shown."""
    from nnunetv2.preprocessing.normalization import map_channel_name_to_normalization as nnunet

    kept = [max(channel.kept for channel in f.intensities) for f in labeled]
    windows = [f.window for f in labeled if f.window is not None]
    return [
        display_of(
            nnunet.get_normalization_scheme(name).__name__,
            [f.intensities[number] for f in labeled],
            kept,
            windows if number == 0 else [],
        )
        for number, name in sorted(form.channel_names.items())
    ]


def _placed(
    labeled: Sequence[CaseFacts], unlabeled: Sequence[CaseFacts], axes: Mapping[str, str]
) -> list[Trait]:
    """Return spacing and extent along each axis, those of scans in the order of most labeled."""
    usual = common_axes(PlacedScan(f.case.id, "imagesTr", axes[f.case.id]) for f in labeled)
    spacings, extents = (
        [
            np.log([_along(f, axes[f.case.id], usual, what) for f in cases])
            for cases in (labeled, unlabeled)
        ]
        for what in (_spacing, _extent)
    )
    dimensions = spacings[0].shape[1]
    kinds = ((SPACING, spacings), (EXTENT, extents)) if dimensions > 2 else ((EXTENT, extents),)
    unit = "mm" if dimensions > 2 else "pixels"
    return [
        Trait(kind, axis, known[:, [number]], other[:, [number]], unit, _LEAST[kind])
        for kind, (known, other) in kinds
        for number, axis in enumerate("xyz"[:dimensions])
    ]


def _spacing(facts: CaseFacts) -> np.ndarray:
    assert facts.geometry is not None
    return np.array(facts.geometry.spacing)


def _extent(facts: CaseFacts) -> np.ndarray:
    assert facts.geometry is not None
    return np.multiply(facts.geometry.spacing, facts.geometry.size)


def _along(
    facts: CaseFacts, axes: str, usual: str, what: Callable[[CaseFacts], np.ndarray]
) -> np.ndarray:
    """Return a length a axis; a scan with other axes has them in the order of ``usual``."""
    lengths = what(facts)
    if len(axes) != len(usual) or not axes:
        return lengths
    sides = [next(n for n, side in enumerate(_SIDES) if letter in side) for letter in axes]
    wanted = [next(n for n, side in enumerate(_SIDES) if letter in side) for letter in usual]
    return lengths[[sides.index(side) for side in wanted]]


def _shown(
    labeled: Sequence[CaseFacts],
    unlabeled: Sequence[CaseFacts],
    displays: Sequence[Display],
    form: DatasetForm,
) -> list[Trait]:
    """Return the intensities of each channel that varies in some labeled scan."""
    traits = []
    for (number, name), display in zip(sorted(form.channel_names.items()), displays, strict=True):
        known, other = (
            np.array([display.of(f.intensities[number]) for f in cases])
            for cases in (labeled, unlabeled)
        )
        if np.isnan(known).all():
            continue
        least = _LEAST[INTENSITIES] if display.per_scan else _LEAST_ON_ONE_SCALE
        unit = display.unit_name
        traits.append(
            Trait(INTENSITIES, f"{number} ({name})", known, other, unit, least, display.read)
        )
    return traits
