"""Losses are computed in float32, also where they are called under autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])


def float32(function: Function) -> Function:
    """Decorate: autocast is off inside, and floating-point tensor arguments are float32."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        device = next(a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)).device
        with torch.autocast(device.type, enabled=False):
            return function(
                *(_cast(a) for a in args), **{name: _cast(a) for name, a in kwargs.items()}
            )

    return wrapped  # type: ignore[return-value]


def _cast(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
