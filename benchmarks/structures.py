"""Measure how long the host takes to compare the structures of maps, as MATCH does in some steps.

    python benchmarks/structures.py [--edges 128 192 256] [--facets 4] [--runs 3]

Maps are the logistic function of smoothed noise, alike but for a little noise of their own: what a
network gives of an image with many structures. Medians of processor time for one class: of one
comparison of the facets, of which MATCH makes two in each step that has any (dropout, snapshots).
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from nnunet_semisup.evaluation.tables import format_table
from nnunet_semisup.losses.structures import structure_loss


def facets_of(edge: int, number: int, random: np.random.Generator) -> torch.Tensor:
    """Return ``(facets, 1, edge, edge)`` probabilities with blobs of a dozen pixels."""

    def smooth(width: float) -> np.ndarray:
        values = gaussian_filter(random.normal(size=(edge, edge)), width)
        return values / values.std()

    common = smooth(4.0)
    maps = [torch.tensor(4 * common + 0.4 * smooth(1.5)) for _ in range(number)]
    return torch.stack(maps)[:, None].sigmoid()


def measure(edge: int, options: argparse.Namespace) -> tuple[str, ...]:
    """Return a row of the table."""
    random = np.random.default_rng(0)
    times, found = [], []
    for _ in range(options.runs + 1):
        maps = facets_of(edge, options.facets, random)
        start = time.process_time()
        _, log = structure_loss(maps, 3)
        times.append(1e3 * (time.process_time() - start))
        found.append(float(log["structures"]) / options.facets)
    return str(edge), f"{statistics.median(found[1:]):.0f}", f"{statistics.median(times[1:]):.0f}"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--edges", type=int, nargs="+", default=[128, 192, 256], help="in pixels")
    parser.add_argument("--facets", type=int, default=4, help="maps that are compared")
    parser.add_argument("--runs", type=int, default=3, help="of each; one more comes before")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(edge, options) for edge in options.edges]
    print(format_table(("edge of the maps", "structures in each", "comparison (ms)"), rows))


if __name__ == "__main__":
    main()
