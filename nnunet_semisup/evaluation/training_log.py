"""Read what nnU-Net's trainer wrote into the log files of a fold."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MESSAGE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?: (.*?)\s*$", re.MULTILINE)
_SECONDS = re.compile(r"Epoch time: ([\d.]+) s")
_NUMBER = re.compile(r"(?<![\w.])-?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan)(?=[,)\]\s])")
"""A value of ``[np.float32(0.52), np.float32(nan)]``, or of ``[0.52, nan]`` below numpy 2."""


@dataclass(frozen=True)
class Epoch:
    """Hold what is logged of an epoch; NaN where a value is not finite or missing.

    Attributes:
        number: from 0.
        train_loss, validation_loss: as logged.
        pseudo_dice: mean over the classes that have one, on patches of the validation cases.
        seconds: of training and validation patches.
    """

    number: int
    train_loss: float
    validation_loss: float
    pseudo_dice: float
    seconds: float


def read_epochs(fold: Path) -> tuple[Epoch, ...]:
    """Return the finished epochs of a training, in order; of repeated ones the last.

    A training that was continued leaves several logs, and begins again with the epoch of its last
    checkpoint.
    """
    found: dict[int, Epoch] = {}
    for text in _logs(fold):
        values: dict[str, str] = {}
        for message in _MESSAGE.findall(text):
            if started := re.fullmatch(r"Epoch (\d+)", message):
                values = {"Epoch": started[1]}
            for name in ("train_loss", "val_loss", "Pseudo dice", "Epoch time:"):
                if message.startswith(f"{name} "):
                    values[name] = message.removeprefix(name)
            if "Epoch" in values and "Epoch time:" in values:
                epoch = _epoch(values)
                found[epoch.number] = epoch
                values = {}
    return tuple(found[number] for number in sorted(found))


def seconds_per_step(fold: Path, steps_per_epoch: int) -> float:
    """Return the median epoch time in nnU-Net's logs over an epoch's steps; NaN without logs."""
    times = [float(seconds) for text in _logs(fold) for seconds in _SECONDS.findall(text)]
    return statistics.median(times) / steps_per_epoch if times else math.nan


def _logs(fold: Path) -> Iterator[str]:
    """Read the logs in the order of their starts, which their names hold."""
    for path in sorted(fold.glob("training_log_*.txt"), key=_started):
        yield path.read_text(encoding="utf-8", errors="replace")


def _started(path: Path) -> tuple[int, ...]:
    """Return date and time; nnU-Net (2.8.1) writes months and days without leading zeros."""
    return tuple(int(number) for number in re.findall(r"\d+", path.name))


def _epoch(values: dict[str, str]) -> Epoch:
    dice = [float(number) for number in _NUMBER.findall(values.get("Pseudo dice", ""))]
    defined = [value for value in dice if not math.isnan(value)]
    return Epoch(
        number=int(values["Epoch"]),
        train_loss=_float(values.get("train_loss", "nan")),
        validation_loss=_float(values.get("val_loss", "nan")),
        pseudo_dice=statistics.fmean(defined) if defined else math.nan,
        seconds=_float(values["Epoch time:"].removesuffix("s")),
    )


def _float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else math.nan
