"""Render the surfaces of label maps side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LightSource, Normalize, to_rgba
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from mpl_toolkits.mplot3d.axes3d import Axes3D
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from nnunet_semisup.evaluation.evaluate import class_mask
from nnunet_semisup.evaluation.inputs import LabelMap, SegmentationClass
from nnunet_semisup.evaluation.overlays import PALETTE
from nnunet_semisup.figures import LIGHT

MOST_FACES = 12_000
"""Triangles of a surface: more take seconds to draw and cannot be told apart."""
COLORS = "plasma"
FARTHEST_PERCENTILE = 99

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Surface:
    """Hold triangles: corners ``(points, 3)`` in mm as x, y, z, and three indices a face."""

    corners: Points
    faces: npt.NDArray[np.int32]


def surface_of(mask: npt.NDArray[np.bool_], spacing: Sequence[float]) -> Surface | None:
    """Return the surface of a mask ``(z, y, x)``; ``None`` if it is empty.

    Where it has too many triangles it is made from every second voxel, and so on.
    """
    if not mask.any():
        return None
    hits = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    start = np.array([h[0] for h in hits])
    box = mask[tuple(slice(h[0], h[-1] + 1) for h in hits)]
    step = 1
    while True:
        padded = np.pad(box, step).astype(np.float32)
        corners, faces, _, _ = marching_cubes(
            padded, 0.5, spacing=tuple(spacing), step_size=step, allow_degenerate=False
        )
        if len(faces) <= MOST_FACES or 2 * step >= min(box.shape):
            break
        step *= 2
    return Surface((corners + (start - step) * np.asarray(spacing))[:, ::-1], faces)


def draw_surfaces(
    reference: LabelMap,
    predictions: Mapping[str, LabelMap],
    classes: Sequence[SegmentationClass],
    unit: str,
) -> Figure:
    """Draw the reference in the colors of its classes and predictions by their distance to it.

    Args:
        reference: label map ``(z, y, x)``.
        predictions: label maps on the same grid by their titles.
        classes: to draw.
        unit: of the spacing.
    """
    true = [surface_of(class_mask(reference, c), reference.spacing) for c in classes]
    drawn = {
        title: [surface_of(class_mask(m, c), m.spacing) for c in classes]
        for title, m in predictions.items()
    }
    distances = {
        title: [
            None if s is None else face_distances(s, t) for s, t in zip(surfaces, true, strict=True)
        ]
        for title, surfaces in drawn.items()
    }
    pooled = [d for ds in distances.values() for d in ds if d is not None]
    farthest = np.percentile(np.concatenate(pooled), FARTHEST_PERCENTILE) if pooled else 1.0
    scale = ScalarMappable(Normalize(0, max(float(farthest), 1e-6)), colormaps[COLORS])
    figure = Figure(figsize=(3.6 * (1 + len(drawn)), 3.3), dpi=100)
    plain = [
        None if s is None else np.tile(to_rgba(PALETTE[i % len(PALETTE)]), (len(s.faces), 1))
        for i, s in enumerate(true)
    ]
    box = _box([s for surfaces in (true, *drawn.values()) for s in surfaces if s])
    columns = {"reference": (true, plain)}
    for title, surfaces in drawn.items():
        colors = [None if d is None else scale.to_rgba(d) for d in distances[title]]
        columns[title] = (surfaces, colors)
    width = 0.93 / len(columns)
    for number, (title, (surfaces, colors)) in enumerate(columns.items()):
        axis = figure.add_axes((number * width, 0, width, 0.92), projection="3d")
        show_surfaces(axis, surfaces, colors, box)
        empty = all(surface is None for surface in surfaces)
        axis.set_title(f"{title}: nothing" if empty else title, fontsize=10, y=1.0)
    bar = figure.add_axes((0.935, 0.15, 0.012, 0.6))
    figure.colorbar(scale, cax=bar).set_label(unit)
    bar.tick_params(colors=LIGHT)
    return figure


def face_distances(surface: Surface, true: Surface | None) -> Points:
    """Return each face's distance ``(faces,)`` in mm to another's corners; far without one."""
    if true is None:
        return np.full(len(surface.faces), np.ptp(surface.corners, axis=0).max())
    nearest = cKDTree(true.corners).query(surface.corners)[0]
    return np.asarray(nearest[surface.faces].mean(axis=1))


def _box(surfaces: Sequence[Surface]) -> tuple[Points, Points]:
    if not surfaces:
        return np.zeros(3), np.ones(3)
    corners = np.concatenate([s.corners for s in surfaces])
    return corners.min(axis=0), corners.max(axis=0)


def show_surfaces(
    axis: Axes3D,
    surfaces: Sequence[Surface | None],
    colors: Sequence[Points | None],
    box: tuple[Points, Points],
    zoom: float = 1.1,
) -> None:
    """Draw lit surfaces.

    Args:
        axis: to draw into.
        surfaces: to draw; ``None`` is left out.
        colors: of each surface RGBA from 0 to 1, ``(faces, 4)``.
        box: lowest and highest corner ``(3,)`` of the view, in mm as x, y, z.
        zoom: of the view.
    """
    for surface, color in zip(surfaces, colors, strict=True):
        if surface is not None:
            triangles = surface.corners[surface.faces]
            axis.add_collection3d(
                Poly3DCollection(
                    triangles,
                    facecolors=color,
                    shade=True,
                    lightsource=LightSource(225, 45),
                    linewidths=0,
                    antialiaseds=False,
                )
            )
    low, high = box
    axis.set_xlim(low[0], high[0])
    axis.set_ylim(low[1], high[1])
    axis.set_zlim(low[2], high[2])
    axis.set_box_aspect(np.maximum(high - low, 1e-6), zoom=zoom)
    axis.set_axis_off()
