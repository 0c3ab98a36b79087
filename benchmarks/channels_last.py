"""Measure what ``channels_last`` does to the time of a step and of a prediction on the CPU.

    python benchmarks/channels_last.py [--patch 32 48 64] [--features 16 32 64 128] [--steps 7]

The network of an nnU-Net plan with both orders of its weights, in float32 and in bfloat16, by turns
on the same random patches; medians of processor time, which other programs disturb less.
``ONEDNN_MAX_CPU_ISA=AVX2`` in front shows a processor without AVX-512.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunet_semisup.evaluation.tables import format_table
from nnunet_semisup.networks.bfloat16 import use_bfloat16
from nnunet_semisup.networks.memory_format import use_channels_last

HEADER = ("precision", "what", "usual order (ms)", "channels-last (ms)", "ratio")


def make_network(dims: int, features: list[int]) -> nn.Module:
    """Build the network that nnU-Net plans, halving every axis from stage to stage."""
    stages = len(features)
    network: nn.Module = PlainConvUNet(
        1,
        stages,
        features,
        {2: nn.Conv2d, 3: nn.Conv3d}[dims],
        [[3] * dims] * stages,
        [[1] * dims] + [[2] * dims] * (stages - 1),
        [2] * stages,
        2,
        [2] * (stages - 1),
        conv_bias=True,
        norm_op={2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dims],
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    return network


def train(network: nn.Module, image: torch.Tensor) -> None:
    """Do one pass and compute its gradients."""
    network.zero_grad()
    torch.nn.functional.cross_entropy(network(image), (image[:, 0] > 0).long()).backward()


def predict(network: nn.Module, image: torch.Tensor) -> None:
    """Do one pass without gradients."""
    with torch.no_grad():
        network(image)


def in_turns(calls: list[Callable[[], None]], steps: int, warmup: int) -> list[float]:
    """Return the median milliseconds of processor time of each call."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(warmup + steps):
        for call, of_call in zip(calls, times, strict=True):
            start = time.process_time()
            call()
            if turn >= warmup:
                of_call.append(1e3 * (time.process_time() - start))
    return [statistics.median(values) for values in times]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patch", type=int, nargs="+", default=[32, 48, 64])
    parser.add_argument("--features", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(0)
    image = torch.randn(options.batch, 1, *options.patch)
    usual = make_network(len(options.patch), options.features)
    rows = []
    for precision in options.precision:
        networks = [usual, copy.deepcopy(usual)]
        use_channels_last(networks[1])
        if precision == "bfloat16":
            networks = [copy.deepcopy(network) for network in networks]
            for network in networks:
                use_bfloat16(network)
        for work in (train, predict):
            calls = [lambda n=network, w=work: w(n, image) for network in networks]
            before, after = in_turns(calls, options.steps, options.warmup)
            what = work.__name__
            rows.append((precision, what, f"{before:.0f}", f"{after:.0f}", f"{after / before:.2f}"))
    print(
        f"patch {options.patch}, features {options.features}, {torch.get_num_threads()} thread(s)"
    )
    print(format_table(HEADER, rows))


if __name__ == "__main__":
    main()
