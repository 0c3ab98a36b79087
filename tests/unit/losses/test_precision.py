from __future__ import annotations

import torch

from nnunet_semisup.losses.precision import float32


@float32
def product(a, b, label=None, *, scale=1.0):
    """Docstring."""
    assert not torch.is_autocast_enabled("cpu")
    return scale * a @ b, label


def test_arguments_are_float32_and_autocast_is_off():
    torch.manual_seed(0)
    a, b = torch.randn(4, 5), torch.randn(5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        got, label = product(a.bfloat16(), b=b, label=torch.tensor([1]), scale=2)
        assert torch.is_autocast_enabled("cpu")
    assert got.dtype == torch.float32
    assert label.dtype == torch.int64
    assert torch.equal(got, 2 * a.bfloat16().float() @ b)


def test_keeps_name_and_docstring():
    assert product.__name__ == "product"
    assert product.__doc__ == "Docstring."
