"""Compare the metrics of the evaluation with MedPy's, on random pairs of masks.

    python benchmarks/against_medpy.py [--pairs 300]

Needs MedPy (``pip install medpy``), which the package itself does not use.
"""

from __future__ import annotations

import argparse

import numpy as np
from medpy.metric import binary
from scipy.ndimage import gaussian_filter

from nnunet_semisup.evaluation.metrics import compute_metrics
from nnunet_semisup.evaluation.tables import format_table

SHAPES = {2: (40, 36), 3: (20, 24, 18)}


def random_pair(generator: np.random.Generator, dims: int) -> tuple[np.ndarray, ...]:
    """Draw two blobs ``(*spatial)`` that overlap in part, and a spacing in mm for each axis."""
    noise = [gaussian_filter(generator.normal(size=SHAPES[dims]), 2) for _ in range(2)]
    shared = gaussian_filter(generator.normal(size=SHAPES[dims]), 3)
    masks = [shared / shared.std() + n / n.std() > generator.uniform(0.5, 2.0) for n in noise]
    return masks[0], masks[1], generator.uniform(0.3, 5.0, dims)


def differences(prediction: np.ndarray, reference: np.ndarray, spacing: np.ndarray) -> list[float]:
    """Return the absolute differences of the five metrics."""
    ours = compute_metrics(prediction, reference, tuple(spacing)).values
    theirs = {
        "Dice": binary.dc(prediction, reference),
        "Jaccard": binary.jc(prediction, reference),
        "HD95": binary.hd95(prediction, reference, spacing),
        "ASD": binary.assd(prediction, reference, spacing),
        "ASD_directed": binary.asd(prediction, reference, spacing),
    }
    return [abs(ours[name] - value) for name, value in theirs.items()]


def main() -> None:
    """Print the greatest difference of each metric."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=300)
    pairs = parser.parse_args().pairs
    generator = np.random.default_rng(0)
    found = []
    while len(found) < pairs:
        prediction, reference, spacing = random_pair(generator, 2 + len(found) % 2)
        if prediction.any() and reference.any():
            found.append(differences(prediction, reference, spacing))
    greatest = np.max(found, axis=0)
    header = ["pairs", "Dice", "Jaccard", "HD95", "ASD", "ASD_directed"]
    print(format_table(header, [[pairs, *(f"{value:.1e}" for value in greatest)]]))


if __name__ == "__main__":
    main()
