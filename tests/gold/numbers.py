"""Arrays of a file as tensors, and the comparison with what was made of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def tensor(array: np.ndarray) -> Tensor:
    """Return a float32 copy."""
    return torch.from_numpy(np.array(array, dtype=np.float32))


def labels(array: np.ndarray) -> Tensor:
    """Return class numbers ``(B, *spatial)`` as ``(B, 1, *spatial)`` int64."""
    return torch.from_numpy(np.array(array, dtype=np.int64))[:, None]


def close(got: Tensor, expected: np.ndarray, tolerance: float) -> None:
    """Compare at an absolute tolerance."""
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=0, atol=tolerance)
