"""One acquisition that appears twice under two names, found from the images alone.

Two exports of one scan differ in crop and slightly in grey values, so hashes do not find them and
labels may be absent. Normalised cross-correlation (Lewis, "Fast normalized cross-correlation",
Vision Interface 1995) is invariant to both shift and affine grey-value maps. All pairs are screened
on thumbnails, where one inverse Fourier transform gives every shift; the few that pass are
confirmed on full-resolution voxels, where two different patients do not correlate. Thumbnails are
compared after their local mean and contrast are taken off, because the outline of a body is alike
in all scans of a kind and has more contrast than all that is in it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from scipy import fft
from scipy.ndimage import uniform_filter
from tqdm import tqdm

from nnunet_semisup.dataset_conversion.volume import Volume

FACTOR = 6
SCREENING_THRESHOLD = 0.65
CONFIRMATION_THRESHOLD = 0.92
MOST_SCREENED_PICTURES = 2_000_000
"""Pairs of 2D thumbnails that are screened: about 8 minutes of one core."""
MOST_SCREENED_SCANS = 500_000
"""Pairs of 3D thumbnails that are screened: up to half an hour of one core."""
MOST_CONFIRMED = 100
"""Pairs that are compared at full resolution, each of which reads two files."""
_TEMPLATE_SHARE = 0.6
_LOCAL_WINDOWS = 5
_LEAST_CONTRAST = 0.05
"""Share of the whole image's standard deviation that keeps noise in air from being amplified."""
_MOST_WINDOWS = 48
"""Thumbnails with more along an axis are halved along it, which changes nothing but the effort."""
_CONFIRMATION_VOXELS = 32**3
PICTURE_THRESHOLD = 0.6
_PICTURE_BACKGROUND = 41
_SMOOTHING = 3


def thumbnail(array: np.ndarray, factor: int = FACTOR) -> np.ndarray:
    """Average windows of ``2 * factor`` voxels a side at every ``factor`` voxels: float32.

    The windows overlap so that a shift by part of a step changes little. An axis has
    ``max(1, n // factor - 1)`` windows.
    """
    steps = [min(factor, size) for size in array.shape]
    small = array[tuple(slice((n // s) * s) for n, s in zip(array.shape, steps, strict=True))]
    # One axis after the other, of which the first shrinks the most: several times faster than all.
    for axis, step in enumerate(steps):
        blocks = (*small.shape[:axis], -1, step, *small.shape[axis + 1 :])
        small = small.reshape(blocks).sum(axis=axis + 1, dtype=np.float32)
    small /= np.float32(math.prod(steps))
    for axis, size in enumerate(small.shape):
        if size > 1:
            small = (small.take(range(size - 1), axis) + small.take(range(1, size), axis)) / 2
    return small


@dataclass(frozen=True)
class Pairs:
    """Hold the pairs of images to search: all but those of one patient.

    Args:
        patients: of each image; ``None`` where it is not known.
        subsets: of each image; where they are given, only pairs across two of them are searched.
    """

    patients: Sequence[str | None]
    subsets: Sequence[str] | None = None

    def wanted(self, first: int, second: int) -> bool:
        """Return whether to search this pair of indices."""
        patient = self.patients[first]
        if patient is not None and patient == self.patients[second]:
            return False
        return self.subsets is None or self.subsets[first] != self.subsets[second]

    @property
    def number(self) -> int:
        """Return how many pairs are searched."""
        known = [(i, patient) for i, patient in enumerate(self.patients) if patient is not None]
        found = math.comb(len(self.patients), 2) - _equal_pairs(patient for _, patient in known)
        if self.subsets is None:
            return found
        both = _equal_pairs((patient, self.subsets[i]) for i, patient in known)
        return found - _equal_pairs(self.subsets) + both


def _equal_pairs(keys: Iterable[Hashable]) -> int:
    """Return how many pairs have the same key."""
    return sum(math.comb(number, 2) for number in Counter(keys).values())


@dataclass(frozen=True)
class Candidate:
    """Hold two scans that look alike.

    ``offset`` is where voxel 0 of ``first`` lies in ``second``, known to ``margin`` voxels.
    """

    first: int
    second: int
    score: float
    offset: tuple[int, ...]
    margin: tuple[int, ...]


class _Searchable:
    """Prepare a thumbnail for comparison with many others of the same ``grid`` and ``box``."""

    def __init__(self, image: np.ndarray, box: Sequence[int], grid: Sequence[int]) -> None:
        self._image = image.astype(np.float64) - image.mean()
        self._box, self._grid = tuple(box), tuple(grid)
        self.start = tuple((n - b) // 2 for n, b in zip(image.shape, box, strict=True))

    @cached_property
    def spectrum(self) -> np.ndarray:
        """Return the Fourier transform of the image, zero-padded to the grid."""
        return fft.rfftn(self._image.astype(np.float32), self._grid)

    @cached_property
    def template_spectrum(self) -> np.ndarray:
        """Return what another image's :meth:`best_match` takes to find the central box."""
        inner = tuple(slice(s, s + b) for s, b in zip(self.start, self._box, strict=True))
        return _template_spectrum(self._image[inner], self._grid)

    @cached_property
    def inverse_norm(self) -> np.ndarray:
        """Return 1 over the norm of the zero-mean box at every shift; 0 where it is constant."""
        count = float(np.prod(self._box))
        squares = _box_sum(self._image**2, self._box)
        variance = squares - _box_sum(self._image, self._box) ** 2 / count
        floor = 1e-9 * max(float(squares.max()), np.finfo(float).tiny)
        return np.where(variance > floor, 1 / np.sqrt(np.maximum(variance, floor)), 0.0)

    def best_match(self, template: np.ndarray) -> tuple[float, tuple[int, ...]]:
        """Return the highest correlation with a template over all shifts, and that shift."""
        full = fft.irfftn(self.spectrum * template, self._grid)
        valid = full[tuple(slice(n) for n in self.inverse_norm.shape)] * self.inverse_norm
        index = np.unravel_index(int(np.argmax(valid)), valid.shape)
        return float(valid[index]), tuple(int(i) for i in index)


def _template_spectrum(template: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """Return the conjugate transform of ``template``, brought to zero mean and unit norm."""
    centred = template - template.mean()
    norm = np.linalg.norm(centred)
    scaled = centred / norm if norm > 0 else centred
    return np.conj(fft.rfftn(scaled.astype(np.float32), grid))


def _box_sum(array: np.ndarray, box: Sequence[int]) -> np.ndarray:
    """Sum over every placement of ``box`` inside ``array``."""
    for axis, side in enumerate(box):
        total = np.cumsum(array, axis=axis)
        total = np.concatenate([np.zeros_like(total.take([0], axis)), total], axis)
        size = total.shape[axis]
        array = total.take(range(side, size), axis) - total.take(range(size - side), axis)
    return array


def screen(
    thumbnails: Sequence[np.ndarray],
    threshold: float = SCREENING_THRESHOLD,
    num_threads: int = 1,
    show_progress: bool = False,
    pairs: Pairs | None = None,
) -> list[Candidate]:
    """Find pairs whose thumbnails correlate at some shift, in the order of the input.

    Args:
        thumbnails: arrays of equal dimension, each from :func:`thumbnail`.
        threshold: lowest correlation to report.
        num_threads: threads, which the Fourier transforms occupy well.
        show_progress: whether to show a bar.
        pairs: those to look at; all by default.
    """
    if len(thumbnails) < 2:
        return []
    smaller, factors = _halved(thumbnails)
    shapes = np.array([t.shape for t in smaller])
    box = [max(1, round(_TEMPLATE_SHARE * n)) for n in shapes.min(axis=0)]
    grid = [fft.next_fast_len(int(n), real=True) for n in shapes.max(axis=0)]
    prepared = [_Searchable(_texture(t), box, grid) for t in smaller]

    wanted = pairs or Pairs([None] * len(prepared))

    def against_all_before(index: int) -> tuple[int, list[Candidate]]:
        row = [first for first in range(index) if wanted.wanted(first, index)]
        compared = (_compare(prepared, first, index, factors) for first in row)
        return len(row), [candidate for candidate in compared if candidate.score >= threshold]

    found: list[Candidate] = []
    with (
        ThreadPoolExecutor(max(1, num_threads)) as pool,
        tqdm(total=wanted.number, desc="screening", unit="pair", disable=not show_progress) as bar,
    ):
        for number, row in pool.map(against_all_before, range(len(prepared))):
            found += row
            bar.update(number)
    return sorted(found, key=lambda c: (c.first, c.second))


def _compare(
    prepared: Sequence[_Searchable], first: int, second: int, factors: Sequence[int]
) -> Candidate:
    """Look for the central box of each in the other; the better of the two matches."""
    one, other = prepared[first], prepared[second]
    score, shift = other.best_match(one.template_spectrum)
    offset = [f * (b - a) for f, a, b in zip(factors, one.start, shift, strict=True)]
    back_score, back = one.best_match(other.template_spectrum)
    if back_score > score:
        score = back_score
        offset = [f * (a - b) for f, a, b in zip(factors, other.start, back, strict=True)]
    return Candidate(first, second, score, tuple(offset), tuple(factors))


def _texture(image: np.ndarray) -> np.ndarray:
    """Express the image in units of its local standard deviation around its local mean."""
    detail = image - uniform_filter(image, _LOCAL_WINDOWS)
    contrast = np.sqrt(uniform_filter(detail**2, _LOCAL_WINDOWS))
    floor = _LEAST_CONTRAST * float(image.std()) + np.finfo(np.float32).tiny
    return detail / (contrast + floor)


def _halved(thumbnails: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """Halve thumbnails to a bounded size; return them and the voxels of a step along each axis."""
    smaller = list(thumbnails)
    factors = [FACTOR] * smaller[0].ndim
    for axis in range(smaller[0].ndim):
        while min(t.shape[axis] for t in smaller) > _MOST_WINDOWS:
            factors[axis] *= 2
            even = [t.take(range(t.shape[axis] // 2 * 2), axis) for t in smaller]
            smaller = [
                (t.take(range(0, n, 2), axis) + t.take(range(1, n, 2), axis)) / 2
                for t in even
                for n in (t.shape[axis],)
            ]
    return smaller, factors


def confirm(
    first: np.ndarray,
    second: np.ndarray,
    offset: Sequence[int],
    margin: Sequence[int] | None = None,
) -> float:
    """Correlate a central block of ``first`` with ``second`` near ``offset``, at full detail.

    Args:
        first: image of shape ``(z, y, x)``.
        second: image of shape ``(z, y, x)``.
        offset: where voxel 0 of ``first`` lies in ``second``.
        margin: voxels to which ``offset`` is known along each axis; ``FACTOR`` by default.

    Returns:
        The highest correlation within that uncertainty; 0 where the two hardly overlap.
    """
    block, window = [], []
    wanted = round(_CONFIRMATION_VOXELS ** (1 / first.ndim))
    for n, m, shift, reach in zip(
        first.shape, second.shape, offset, margin or [FACTOR] * first.ndim, strict=True
    ):
        low, high = max(0, -shift), min(n, m - shift)
        side = min(wanted, high - low - 2 * min(reach, max(0, (high - low) // 4)))
        if side < min(4, n, m):
            return 0.0
        start = (low + high - side) // 2
        block.append(slice(start, start + side))
        begin = start + shift
        window.append(slice(max(0, begin - reach), min(m, begin + side + reach)))
    template = _details(first[tuple(block)])
    region = _details(second[tuple(window)])
    searchable = _Searchable(region, template.shape, region.shape)
    return searchable.best_match(_template_spectrum(template, region.shape))[0]


def _details(array: np.ndarray) -> np.ndarray:
    """Remove noise; from pictures also their illumination, which is alike in all of a kind."""
    values = array.astype(np.float32)
    smooth = uniform_filter(values, _SMOOTHING)
    return smooth if array.ndim > 2 else smooth - uniform_filter(values, _PICTURE_BACKGROUND)


def confirm_files(
    candidate: Candidate, paths: Sequence[Path], read: Callable[[Path], Volume]
) -> float:
    """Call :func:`confirm` for a candidate whose indices refer to ``paths``."""
    first, second = read(paths[candidate.first]), read(paths[candidate.second])
    return confirm(first.grey, second.grey, candidate.offset, candidate.margin)


def affordable(
    pairs: Pairs, subsets: Sequence[str], most: int, note: Callable[[str], None]
) -> Pairs | None:
    """Return the pairs to screen: all, else those across two subsets, else none.

    Args:
        pairs: all that are wanted.
        subsets: of each image; may be empty.
        most: number of pairs that may be screened.
        note: is told what is left out.
    """
    if pairs.number <= most:
        return pairs
    text = f"there are {pairs.number} pairs of images, and at most {most} are searched for images"
    text += " of the same scan at another crop or brightness"
    exact = "Exact copies were searched among all images"
    across = replace(pairs, subsets=subsets) if subsets else pairs
    if 0 < across.number <= most:
        note(f"{text}: only the {across.number} across two subsets were. {exact}")
        return across
    also = f" ({across.number} of them across two subsets)" if subsets else ""
    note(f"{text}{also}: this search is left out. {exact}")
    return None


def near_duplicates(
    thumbnails: Sequence[np.ndarray],
    paths: Sequence[Path],
    read: Callable[[Path], Volume],
    mapper: Callable[[Callable[[Candidate], float], Sequence[Candidate], list[str]], list[float]],
    patients: Sequence[str | None] = (),
    subsets: Sequence[str] = (),
    note: Callable[[str], None] = lambda text: None,
    num_threads: int = 1,
) -> list[tuple[int, int, float]]:
    """Find pairs of indices that show one acquisition, with their full-resolution correlation.

    Args:
        thumbnails: one an image.
        paths: the images' files, in the same order.
        read: reads a file.
        mapper: applies a function to candidates, perhaps in parallel, given their names.
        patients: of each image, in the same order, ``None`` where it is not known; two images of
            one are alike for that reason and not looked at.
        subsets: of each image; see :func:`affordable`.
        note: is told when there were too many pairs or candidates to look at all of them.
        num_threads: of :func:`screen`.
    """
    if not thumbnails:
        return []
    flat = thumbnails[0].ndim < 3
    most = MOST_SCREENED_PICTURES if flat else MOST_SCREENED_SCANS
    pairs = affordable(Pairs(patients or [None] * len(thumbnails)), subsets, most, note)
    if pairs is None:
        return []
    candidates = screen(thumbnails, num_threads=num_threads, show_progress=True, pairs=pairs)
    if not candidates:
        return []
    if len(candidates) > MOST_CONFIRMED:
        note(
            f"{len(candidates)} pairs of images look alike when they are made small; only the "
            f"{MOST_CONFIRMED} most similar were compared in detail"
        )
        likely = sorted(candidates, key=lambda c: -c.score)[:MOST_CONFIRMED]
        candidates = sorted(likely, key=lambda c: (c.first, c.second))
    threshold = PICTURE_THRESHOLD if flat else CONFIRMATION_THRESHOLD
    names = [f"{paths[c.first].name} and {paths[c.second].name}" for c in candidates]
    scores = mapper(partial(confirm_files, paths=paths, read=read), candidates, names)
    return [
        (candidate.first, candidate.second, score)
        for candidate, score in zip(candidates, scores, strict=True)
        if score >= threshold
    ]
