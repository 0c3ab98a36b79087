"""Recorded numbers to compare with; every array's shape is taken from the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Gold = dict[str, np.ndarray]


@pytest.fixture
def gold() -> Callable[[str], Gold]:
    """Reads ``<name>.npz`` of this folder."""

    def read(name: str) -> Gold:
        with np.load(Path(__file__).with_name(f"{name}.npz")) as file:
            return {key: file[key] for key in file.files}

    return read
