"""Small maps, and their topology by another route than the package's."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, label
from scipy.special import expit


def blob(shape, centre, sigma=2.0, height=250.0):
    """Return a Gaussian, not rounded."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return height * np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * sigma**2))


def levels(values):
    return np.round(values).astype(np.int16)


def noise(seed, shape=(12, 17), smooth=1.0, contrast=2.0):
    """Return a random map in steps of 1/256."""
    values = gaussian_filter(np.random.default_rng(seed).normal(size=shape), smooth)
    return levels(256 * expit(contrast * values / values.std()))


def neighbors(pixel, shape):
    """Yield the pixels that share an edge with a pixel of the flattened map."""
    y, x = divmod(pixel, shape[1])
    for row, column in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
        if 0 <= row < shape[0] and 0 <= column < shape[1]:
            yield row * shape[1] + column


def pairs_by_union(values):
    """Return births and deaths (levels) by adding pixels from the highest on; no gudhi.

    The elder rule: where two components meet, the one with the lower peak dies.
    """
    flat = values.ravel()
    peak, found = {}, []
    for pixel in np.argsort(-flat, kind="stable"):
        met = {}
        for other in neighbors(int(pixel), values.shape):
            if other in peak:
                met[id(peak[other])] = peak[other]
        own = [int(pixel)]
        for group in sorted(met.values(), key=lambda group: flat[group[0]]):
            if len(own) > 1:
                found.append((int(flat[own[0]]), int(flat[pixel])))
            elif flat[group[0]] < flat[pixel]:
                raise AssertionError("pixels come from the highest on")
            own = [*group, *own]
        for member in own:
            peak[member] = own
    found.append((int(flat.max()), int(flat.min())))
    return sorted(pair for pair in found if pair[0] > pair[1])


def component(values, pixel, above):
    """Return the mask of a pixel's component higher than a level."""
    number = label(values > above)[0]
    return number == number.ravel()[pixel]
