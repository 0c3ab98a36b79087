"""Make up a scan: one slice through a body with two organs and structures that look like them.

Five things vary from case to case, each along a scale from 0 to 1: the phase (in which the organs
lose their contrast to what surrounds them, and trade places with it), noise, the bias field, form
(position, size and shape of everything) and blur. ``reach`` is how far along the scales a case may
lie. The labeled cases lie near 0, as where one hospital's good scans were annotated; the others lie
anywhere, so that the unlabeled ones lead from what the labels show to what they do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

ORGAN = "organ"
LABELS = {"background": 0, ORGAN: 1}
SIZE = 64
"""Pixels of a side."""
SPACING = 4.5
"""Millimetres of a pixel."""
LOOKALIKES = 3
LABELED_REACH = 0.25
"""The part of each scale that the labeled cases cover."""


def make_case(
    seed: int | Sequence[int], reach: float = 1.0
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Draw one scan and its label map.

    Args:
        seed: anything that ``numpy.random.default_rng`` takes.
        reach: how far along each scale of variation the case may lie, 0 to 1.

    Returns:
        Gray values 1 to 255 and the labels 0, 1, 2, both ``(SIZE, SIZE)``. Either organ is one
        edge-connected component without holes.
    """
    rng = np.random.default_rng(seed)
    phase, noise, bias, form, blur = rng.uniform(0, 1, 5) * reach
    body = _Body(rng, form)
    organ, neighbour = body.organs()
    clean = body.tissue(phase)
    for mask in body.lookalikes(organ | neighbour):
        clean[mask] = rng.uniform(0.1, 0.45) + 0.05 * _random_field(rng, 0.04)[mask]
        if rng.random() < 0.5:
            clean[_inside(mask)] -= rng.uniform(0.3, 0.7)
    capsule = ndimage.binary_dilation(organ | neighbour) & body.inner & ~organ & ~neighbour
    clean[capsule] = np.minimum(clean[capsule], -0.15)
    clean[neighbour] = _between(1.1, 0.8, phase) + 0.1 * _random_field(rng, 0.04)[neighbour]
    clean[_inside(neighbour)] -= 0.6
    vessels = 0.3 * (_random_field(rng, 0.03) > 1.3)
    clean[organ] = (_between(0.85, 0.4, phase) + 0.1 * _random_field(rng, 0.04) + vessels)[organ]
    return _acquire(rng, clean, noise, bias, blur), organ.astype(np.uint8)


class _Body:
    """Lay out a body: its coat of fat, spine, organs and look-alikes.

    Places are given in the body's own coordinates, the middle being 0 and its rim 1.
    """

    def __init__(self, rng: np.random.Generator, form: float) -> None:
        self.rng, self.form = rng, form
        self.shift = rng.uniform(-1, 1, 2) * _between(0.03, 0.1, form)
        stretch = rng.uniform(-1, 1) * _between(0.02, 0.12, form)
        self.radii = np.array([0.72 * (1 - stretch), 0.86 * (1 + stretch)])
        self.tilt = rng.uniform(-1, 1) * _between(0.05, 0.25, form)
        self.side = 1 if rng.random() < 0.5 else -1
        self.mask = _blob(rng, self.shift, self.radii, self.tilt, 0.04)
        coat = int(rng.integers(1, 3 + round(2 * form)))
        self.inner = ndimage.binary_erosion(self.mask, iterations=coat)
        self.spine = _blob(rng, self._place(0.6, 0), np.array([0.15, 0.15]), 0, 0.05)

    def _place(self, down: float, across: float) -> Array:
        """Return the image coordinates of a point; ``across`` is positive on the organs' side."""
        point: Array = self.shift + _rotation(-self.tilt) @ (
            np.array([down, across * self.side]) * self.radii
        )
        return point

    def organs(self) -> tuple[Mask, Mask]:
        """Draw the large organ and the small one, which touches or nearly touches it."""
        rng, form = self.rng, self.form
        grown = 1 + rng.uniform(-1, 1, 2) * _between(0.05, 0.2, form)
        large = _blob(
            rng,
            self._place(rng.uniform(-0.3, -0.05), rng.uniform(0.3, 0.4)),
            np.array([0.36, 0.32]) * grown[0] * rng.uniform(0.9, 1.1, 2),
            self.tilt + rng.uniform(-0.6, 0.6),
            _between(0.1, 0.18, form),
        )
        small = _blob(
            rng,
            self._place(rng.uniform(0.3, 0.5), rng.uniform(0.32, 0.44)),
            np.array([0.23, 0.19]) * grown[1] * rng.uniform(0.9, 1.1, 2),
            self.tilt + rng.uniform(-0.8, 0.8),
            0.08,
        )
        free = self.inner & ~self.spine
        small = _largest_component(small & free)
        return _largest_component(large & free & ~small), small

    def lookalikes(self, organs: Mask) -> list[Mask]:
        """Draw four structures on the other side that are as gray as the organs."""
        rng = self.rng
        found = []
        for _ in range(LOOKALIKES):
            place = self._place(rng.uniform(-0.6, 0.35), -rng.uniform(0.15, 0.6))
            radii = rng.uniform(0.1, 0.26, 2)
            blob = _blob(rng, place, radii, rng.uniform(0, np.pi), 0.15)
            found.append(blob & self.inner & ~organs & ~self.spine)
        return found

    def tissue(self, phase: float) -> Array:
        """Return gray values of everything but organs and look-alikes; soft tissue is about 0."""
        texture = 0.12 * _random_field(self.rng, 0.04) + 0.12 * _random_field(self.rng, 0.1)
        gray = np.where(self.mask, _between(1.3, 0.8, phase), -1.2)
        gray = np.where(self.inner, texture, gray)
        gray[self.spine] = _between(1.0, 0.7, phase)
        gray[_inside(self.spine)] = 0.2
        return gray


def _acquire(
    rng: np.random.Generator, clean: Array, noise: float, bias: float, blur: float
) -> npt.NDArray[np.int16]:
    """Scan what is there: blurred, noisy, brighter on one side than on another."""
    shown = ndimage.gaussian_filter(clean, _between(0.35, 1.0, blur))
    white = rng.standard_normal((SIZE, SIZE))
    grain = _between(1, 0.6, blur) * white + 0.8 * blur * _random_field(rng, 0.012)
    shown = shown + _between(0.08, 0.5, noise) * grain
    field = np.exp(_between(0.05, 0.25, bias) * _random_field(rng, 0.35))
    return np.clip(np.round((100 + 40 * shown) * field), 1, 255).astype(np.int16)


def _between(start: float, end: float, along: float) -> float:
    return start + (end - start) * along


def _inside(mask: Mask) -> Mask:
    """Return what is left of a structure without its wall."""
    core: Mask = ndimage.binary_erosion(mask, iterations=2)
    return core


def _rotation(angle: float) -> Array:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]])


def _blob(
    rng: np.random.Generator, centre: Array, radii: Array, angle: float, rough: float
) -> Mask:
    """Draw a rotated ellipse with a smoothly displaced outline; the image reaches from -1 to 1."""
    axis = np.linspace(-1, 1, SIZE)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"))
    offset = np.tensordot(_rotation(angle), grid - centre.reshape(2, 1, 1), axes=1)
    distance = np.sqrt(((offset / radii.reshape(2, 1, 1)) ** 2).sum(axis=0))
    return _largest_component(distance + rough * _random_field(rng, 0.08) <= 1)


def _largest_component(mask: Mask) -> Mask:
    """Return the largest edge-connected component, holes filled; an empty mask stays empty."""
    components, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(components.ravel())[1:]
    filled: Mask = ndimage.binary_fill_holes(components == 1 + int(sizes.argmax()))
    return filled


def _random_field(rng: np.random.Generator, scale: float) -> Array:
    """Draw a Gaussian field, mean 0, variance 1; ``scale``: smoothness, a fraction of the image."""
    field = ndimage.gaussian_filter(rng.standard_normal((SIZE, SIZE)), scale * SIZE)
    standardized: Array = (field - field.mean()) / field.std()
    return standardized
