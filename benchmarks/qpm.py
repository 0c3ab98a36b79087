"""Time a call of the quantized perturbation, against a loop over the codes in use.

    python benchmarks/qpm.py [--tokens 3072] [--codes 2048 16384] [--calls 5]

The loop does what the formula says, code by code: distances, softmax, multinomial draws. It is the
reference for the ratios, and is checked to move as many tokens. Runs on the CPU, and on the GPU
where there is one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from nnunet_semisup.evaluation.tables import format_table
from nnunet_semisup.networks.qpm import calibrate_temperature, perturb, transition_matrix

MODES = ("calibrated", "uniform", "paper")
EPSILON = 0.7
CODE_DIM = 32


def loop_over_codes(
    indices: Tensor, codebook: Tensor, epsilon: float, mode: str, temperature: Tensor
) -> Tensor:
    """Compute :func:`perturb` code by code, for reference: distances, softmax and draws of each."""
    moved = indices.clone()
    chosen = torch.rand(indices.shape, device=indices.device) < epsilon
    for code in indices[chosen].unique().tolist():
        tokens = (indices == code) & chosen
        squared = (codebook - codebook[code]).square().sum(1)
        distances = {
            "calibrated": squared / temperature,
            "paper": squared.sqrt(),
            "uniform": torch.zeros_like(squared),
        }[mode]
        distances[code] = torch.inf
        weights = torch.softmax(-distances, 0)
        moved[tokens] = torch.multinomial(weights, int(tokens.sum()), replacement=True)
    return moved


def median_ms(function: Callable[[], Tensor], calls: int, device: torch.device) -> float:
    """Return the median time of ``calls`` calls after one that is not counted, in milliseconds.

    On the CPU it is processor time, which other programs disturb less.
    """
    times = []
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    for call in range(calls + 1):
        start = clock()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if call > 0:
            times.append(1e3 * (clock() - start))
    return statistics.median(times)


def check(tokens: int, device: torch.device) -> None:
    """Check that both draw from the analytic distribution, at 6 codes."""
    codebook = torch.randn(6, CODE_DIM, device=device) / 4
    for mode in MODES:
        temperature = calibrate_temperature(codebook, 3.0)
        expected = transition_matrix(codebook, EPSILON, mode, temperature)[2]
        indices = torch.full((20 * tokens,), 2, device=device)
        for function in (perturb, loop_over_codes):
            moved = function(indices, codebook, EPSILON, mode=mode, temperature=temperature)
            frequency = torch.bincount(moved, minlength=6) / moved.numel()
            if (frequency - expected).abs().max() > 0.02:
                sys.exit(f"{function.__name__} does not follow mode {mode}: {frequency}")


def measure(
    tokens: int, codes: list[int], calls: int, device: torch.device
) -> list[tuple[object, ...]]:
    """Return the rows of the table for one device."""
    rows: list[tuple[object, ...]] = []
    for size in codes:
        codebook = torch.randn(size, CODE_DIM, device=device)
        indices = torch.randint(0, size, (tokens,), device=device)
        temperature = calibrate_temperature(codebook, 32.0)
        for mode in MODES:
            ours, loop = (
                median_ms(
                    lambda f=function, c=codebook, i=indices, m=mode, t=temperature: f(
                        i, c, EPSILON, mode=m, temperature=t
                    ),
                    count,
                    device,
                )
                for function, count in ((perturb, calls), (loop_over_codes, max(1, calls // 2)))
            )
            ratio = f"{loop / ours:.1f}x"
            rows.append((device.type, size, mode, f"{ours:.1f}", f"{loop:.1f}", ratio))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=3072)
    parser.add_argument("--codes", type=int, nargs="+", default=[2048, 16384])
    parser.add_argument("--calls", type=int, default=5, help="timed calls; the median is shown")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    devices = [torch.device("cpu")]
    if torch.cuda.is_available():
        devices.append(torch.device("cuda"))
    rows = []
    for device in devices:
        check(arguments.tokens, device)
        rows += measure(arguments.tokens, arguments.codes, arguments.calls, device)
    print(
        f"{arguments.tokens} tokens, code width {CODE_DIM}, epsilon {EPSILON}, median of "
        f"{arguments.calls} calls; CPU with {torch.get_num_threads()} thread(s)"
    )
    header = ("device", "codes", "mode", "QPM (ms)", "loop (ms)", "loop / QPM")
    print(format_table(header, rows))


if __name__ == "__main__":
    main()
