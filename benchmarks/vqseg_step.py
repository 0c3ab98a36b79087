"""Take a training step of VQ-Seg apart, on made-up data.

    python benchmarks/vqseg_step.py [--patch 32 48 64] [--features 16 32 64 128] [--steps 5]

Options are those of ``step_cost.py``; passes count with their backward, without torch.compile.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

import step_cost
import torch

from nnunet_semisup.evaluation.tables import format_table
from nnunet_semisup.networks import quantizer as quantizer_module
from nnunet_semisup.networks.vq_unet import ReconstructionDecoder
from nnunet_semisup.trainers import pseudo_label as pseudo_label_module
from nnunet_semisup.trainers import vqseg as vqseg_module
from nnunet_semisup.training import batches as batches_module
from nnunet_semisup.training import labeled as labeled_module
from nnunet_semisup.training.ema import EMATeacher
from nnunet_semisup.training.semi_supervised import SemiSupervisedTrainer

TAKEN_APART = "nnUNetTrainerVQSeg"


class Stopwatch:
    """Sum milliseconds by part; of nested parts only the innermost runs."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.totals: defaultdict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    def _switch(self) -> None:
        step_cost.synchronize(self.device)
        time_now = step_cost.now(self.device)
        if self._running:
            self.totals[self._running[-1]] += time_now - self._since
        self._since = time_now

    def timed(
        self, function: Callable[..., Any], part: str | Callable[..., str]
    ) -> Callable[..., Any]:
        """Return ``function`` counted to ``part``, which may depend on the arguments."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._switch()
            self._running.append(part if isinstance(part, str) else part(*args))
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self._running.pop()

        return wrapped


def take_apart(options: argparse.Namespace) -> dict[str, float]:
    """Return the milliseconds of each part of a step of VQ-Seg, without torch.compile."""
    with mock.patch.dict(os.environ, nnUNet_compile="false"):
        trainer = step_cost.build(TAKEN_APART, options)
    watch = Stopwatch(trainer.device)
    passes = ["labeled pass"]

    def of_pass(_: Any, image: Any, name: str, *rest: Any) -> str:
        passes.append("labeled pass" if name == "labeled" else "student pass")
        return passes[-1]

    parts: list[tuple[Any, str, str | Callable[..., str]]] = [
        (SemiSupervisedTrainer, "student_pass", of_pass),
        (torch.Tensor, "backward", lambda *_: passes[-1]),
        (trainer, "supervised_loss", "labeled pass"),
        (trainer, "pseudo_label_loss", "student pass"),
        (trainer, "teacher_logits", "teacher pass"),
        (vqseg_module, "usage_entropy", "usage loss (forward)"),
        (labeled_module, "clip_and_step", "optimizer"),
        (EMATeacher, "update_parameters", "EMA"),
        (ReconstructionDecoder, "forward", "reconstruction (forward)"),
        (quantizer_module.VectorQuantizer, "forward", "quantizer (forward, teacher's too)"),
        (quantizer_module, "perturb", "QPM"),
        (batches_module, "strong_view", "strong view and mixing"),
        (pseudo_label_module, "sample_boxes", "strong view and mixing"),
        (pseudo_label_module, "exchange_with_previous", "strong view and mixing"),
    ]
    batch = step_cost.make_batch(trainer, options)
    for _ in range(options.warmup):
        step_cost.step(trainer, batch)
    with ExitStack() as patches:
        for owner, attribute, part in parts:
            timed = watch.timed(getattr(owner, attribute), part)
            patches.enter_context(mock.patch.object(owner, attribute, timed))
        whole = watch.timed(trainer.train_step, "rest")
        for _ in range(options.steps):
            trainer.iteration += 1
            whole(batch)
    result = {part: total / options.steps for part, total in watch.totals.items()}
    watch.timed(lambda: [q.calibrate(32.0) for q in trainer.student.quantizers], "c")()
    result["QPM calibration, per step"] = watch.totals["c"] / trainer.calibrate_every
    return result


def main() -> None:
    """Measure and print the parts."""
    options = step_cost.parse_options()
    torch.manual_seed(0)
    os.environ.update(nnUNet_compile="false")
    with step_cost.data_folders(), step_cost.precision(options):
        parts = sorted(take_apart(options).items(), key=lambda item: -item[1])
    total = sum(ms for _, ms in parts)
    rows = [(part, f"{ms:.1f}", f"{ms / total:.1%}") for part, ms in parts]
    print(f"{TAKEN_APART}, one step taken apart (passes with their backward):")
    print(format_table(("part", "ms", "share"), rows))


if __name__ == "__main__":
    main()
