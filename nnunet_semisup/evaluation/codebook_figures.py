"""Draw a codebook: its evolution over training, and code maps beside image and output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from nnunet_semisup.losses.activation import hard_labels

MAX_CODES = 256
"""Codes a panel in the picture of the evolution; of a larger codebook every n-th is drawn."""


def plot_evolution(snapshots: list[dict[str, Any]], path: Path) -> None:
    """Draw all codes in the first, middle and last epoch, in a common 2D embedding (t-SNE).

    Codes that a token took in that epoch are orange, the others blue; the title has their share.

    Args:
        snapshots: dictionaries with ``epoch``, ``codes`` ``(K, D)`` and ``used`` ``(K,)`` bool.
        path: of the PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from sklearn.manifold import TSNE

    step = max(1, snapshots[0]["codes"].shape[0] // MAX_CODES)
    codes = np.concatenate([s["codes"].numpy()[::step] for s in snapshots])
    places = TSNE(
        init="pca", perplexity=min(30, len(codes) / 4), angle=0.7, random_state=0
    ).fit_transform(codes)
    figure = Figure(figsize=(5 * len(snapshots), 5), layout="constrained")
    FigureCanvasAgg(figure)
    for i, (snapshot, part) in enumerate(
        zip(snapshots, np.split(places, len(snapshots)), strict=True)
    ):
        axis = figure.add_subplot(1, len(snapshots), i + 1)
        used = snapshot["used"].numpy()[::step]
        axis.scatter(*part[~used].T, s=6, c="tab:blue", label="unused")
        axis.scatter(*part[used].T, s=6, c="tab:orange", label="used")
        share = snapshot["used"].float().mean().item()
        axis.set_title(f"epoch {snapshot['epoch']}: {share:.1%} of the codes used")
        axis.set_xlim(places[:, 0].min() - 1, places[:, 0].max() + 1)
        axis.set_ylim(places[:, 1].min() - 1, places[:, 1].max() + 1)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.axes[0].legend(loc="lower left")
    figure.savefig(path, dpi=90)


def plot_code_maps(
    image: Tensor,
    indices: Tensor,
    reconstruction: Tensor | None,
    probs: Tensor,
    regions: bool,
    path: Path,
) -> None:
    """Draw middle slices of image, reconstruction, code map and prediction, one row a patch.

    A code has the same colour in all rows; image and reconstruction of a row have the same window.

    Args:
        image: ``(B, C, *spatial)``.
        indices: ``(B, *spatial of the codes)``.
        reconstruction: ``(B, C, *spatial of the reconstruction)`` or ``None``.
        probs: ``(B, classes, *spatial)``.
        regions: channels overlap.
        path: of the PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = min(4, image.shape[0])
    labels = hard_labels(probs, regions).sum(1).float()
    colours = np.random.default_rng(0).permutation(int(indices.max()) + 1)
    panels: list[tuple[str, Any, dict[str, Any]]] = [
        ("image", image[:, 0].numpy(), {"cmap": "gray"}),
        ("codes", colours[indices.numpy()], {"cmap": "nipy_spectral", "vmax": len(colours)}),
        ("prediction", labels.numpy(), {"cmap": "viridis", "vmax": max(1, probs.shape[1] - 1)}),
    ]
    if reconstruction is not None:
        panels.insert(1, ("reconstruction", reconstruction[:, 0].numpy(), {"cmap": "gray"}))
    height, width = image.shape[-2:]
    figure = Figure(
        figsize=(3 * len(panels), 3 * rows * height / width + 0.4), layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, len(panels), squeeze=False)
    for row in range(rows):
        window = np.percentile(_middle(image[row, 0].numpy()), (0.5, 99.5))
        for axis, (title, volumes, look) in zip(axes[row], panels, strict=True):
            low, high = window if look["cmap"] == "gray" else (0, look["vmax"])
            axis.imshow(
                _middle(volumes[row]),
                cmap=look["cmap"],
                vmin=low,
                vmax=high,
                interpolation="nearest",
                extent=(0, width, height, 0),
            )
            axis.set_axis_off()
            if row == 0:
                axis.set_title(title)
    figure.savefig(path, dpi=90)


def _middle(volume: np.ndarray) -> np.ndarray:
    return volume if volume.ndim == 2 else volume[volume.shape[0] // 2]
