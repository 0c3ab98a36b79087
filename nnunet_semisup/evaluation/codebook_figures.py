"""Pictures of a codebook: its evolution over training, and code maps beside image and output."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

MAX_CODES = 1024
"""Codes a panel in the picture of the evolution; of a larger codebook every n-th is drawn."""


def plot_evolution(snapshots: list[dict[str, Any]], path: str) -> None:
    """Three panels (first, middle, last epoch) of all codes in a common 2D embedding (t-SNE).

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
    places = TSNE(init="pca", perplexity=min(30, len(codes) / 4), random_state=0).fit_transform(
        codes
    )
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
    path: str,
) -> None:
    """Middle slices of image, reconstruction, code map and prediction, one row a patch.

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
    figure = Figure(figsize=(12, 3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    labels = (probs > 0.5).float().sum(1) if regions else probs.argmax(1).float()
    colours = np.random.default_rng(0).permutation(int(indices.max()) + 1)
    for row in range(rows):
        codes = colours[_middle(indices[row].numpy())]
        panels = [
            ("image", _middle(image[row, 0].numpy()), "gray"),
            ("codes", codes, "nipy_spectral"),
            ("prediction", _middle(labels[row].numpy()), "viridis"),
        ]
        if reconstruction is not None:
            shown = _middle(reconstruction[row, 0].numpy())
            panels.insert(1, ("reconstruction", shown, "gray"))
        for column, (title, picture, cmap) in enumerate(panels):
            axis = figure.add_subplot(rows, len(panels), row * len(panels) + column + 1)
            axis.imshow(picture, cmap=cmap, interpolation="nearest", aspect="auto")
            axis.set_axis_off()
            if row == 0:
                axis.set_title(title)
    figure.savefig(path, dpi=90)


def _middle(volume: np.ndarray) -> np.ndarray:
    return volume if volume.ndim == 2 else volume[volume.shape[0] // 2]
