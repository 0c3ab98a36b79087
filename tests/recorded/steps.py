"""Record three training steps of each trainer: every loss term and the weights afterwards.

    python -m tests.recorded.steps FILE             record into FILE
    python -m tests.recorded.steps FILE --compare   train again and say what differs from FILE

Made on one machine before and after a change of the machinery, two records show whether a method
changed with it: terms and hashes of the weights are equal to the last bit, or the page of the
change says why not. Other processors and other versions of torch round differently.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_semisup.registry import METHODS, find_method
from nnunet_semisup.training.monitor import Monitor
from nnunet_semisup.training.settings import VARIABLE, split_assignments
from tests.contract.conftest import KINDS, _make, fitting, kinds_of, trainer_class
from tests.helpers import nnunet_folders

STEPS = 3
COMMON = {
    "num_epochs": 1,
    "num_iterations_per_epoch": STEPS,
    "num_val_iterations_per_epoch": 1,
    "seed": 3,
}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "nnUNetTrainerVQSeg": {"weak, aligned": {"qpm_view": "weak", "foundation_model": "random"}},
    "nnUNetTrainerMeanTeacherText": {"without text": {"text_model": "none"}},
}
"""Further settings of a trainer that take other paths; recorded for labels alone."""


def runs() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Give each trainer, kind of data set, name of the settings and settings."""
    for method in METHODS:
        usual: dict[str, Any] = split_assignments(method.trial)
        if method.trainer == "nnUNetTrainerTextSemiSeg":
            usual.pop("mix_start")  # The first step has no mixed pass, as in a training.
        for kind in kinds_of(method):
            yield method.trainer, kind, "defaults", usual
        for name, settings in VARIANTS.get(method.trainer, {}).items():
            yield method.trainer, fitting(method, "labels3d"), name, {**usual, **settings}


def three_steps(name: str, kind: str, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Train three steps; give each step's terms and, by name, hash and sum of each weight."""
    given = {**COMMON, **settings}
    os.environ[VARIABLE] = ",".join(f"{k}={v}" for k, v in given.items())
    plans = json.loads((folder / "nnUNetPlans.json").read_text(encoding="utf-8"))
    trainer = trainer_class(find_method(name))(
        {**plans, "continue_training": False},
        KINDS[kind].configuration,
        0,
        json.loads((folder / "dataset.json").read_text(encoding="utf-8")),
        torch.device("cpu"),
    )
    trainer.initialize()
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    losses = []
    for step in range(STEPS):
        trainer.iteration = step
        monitor = trainer.monitor = Monitor()
        loss = trainer.train_step(next(trainer.dataloader_train))["loss"]
        terms = {term: float(value) for term, value in monitor._sums.items()}
        losses.append({"loss": float(loss), **terms})
    networks = {"network": trainer.network}
    if getattr(trainer, "teacher", None) is not None:
        networks["teacher"] = trainer.teacher.module
    weights = {
        f"{which}.{key}": [
            hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()[:12],
            float(f"{float(value.double().sum()):.9g}"),
        ]
        for which, network in networks.items()
        for key, value in network.state_dict().items()
    }
    return {"losses": losses, "weights": weights}


@contextmanager
def datasets() -> Iterator[dict[str, Path]]:
    """Make every kind of data set in a temporary folder."""
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        folders = nnunet_folders(Path(root), patch)
        made = {k: _make(kind, folders.raw, folders.preprocessed) for k, kind in KINDS.items()}
        patch.setenv("nnUNet_n_proc_DA", "0")
        patch.setenv("nnUNet_semisup_set", "")
        yield made


def record() -> dict[str, Any]:
    """Run everything."""
    torch.set_num_threads(1)
    result = {}
    with datasets() as made:
        for name, kind, settings_name, settings in runs():
            key = f"{name}, {kind}, {settings_name}"
            print(key, file=sys.stderr)
            result[key] = three_steps(name, kind, made[kind], settings)
    return {"torch": torch.__version__, "runs": result}


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Say for each run what differs: terms by step, and the number of weights."""
    lines = []
    for key, then in before["runs"].items():
        now = after["runs"].get(key)
        if now is None:
            lines.append(f"{key}: not run")
            continue
        found = [
            f"step {step} {term} {old.get(term)!r} -> {new.get(term)!r}"
            for step, (old, new) in enumerate(zip(then["losses"], now["losses"], strict=True))
            for term in sorted({*old, *new})
            if old.get(term) != new.get(term)
        ]
        # Names of parts may change with the machinery; the values may not.
        hashes, others = (
            Counter(value[0] for value in run["weights"].values()) for run in (then, now)
        )
        if changed := hashes - others:
            found.append(f"{changed.total()} of {hashes.total()} weights")
        lines.append(f"{key}: " + ("equal" if not found else "; ".join(found)))
    return lines


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--compare", action="store_true", help="with FILE, instead of writing it")
    arguments = parser.parse_args()
    recorded = record()
    if arguments.compare:
        before = json.loads(arguments.file.read_text(encoding="utf-8"))
        print("\n".join(differences(before, recorded)))
        return
    arguments.file.write_text(
        json.dumps(recorded, indent=0, separators=(",", ":")), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
