"""NSDA against the numbers of its authors' code.

That code counts zero padding in its means and adds an absolute term against a division by zero, so
the numbers agree away from the borders.
"""

from __future__ import annotations

import torch
from torch import nn

from nnunet_semisup.networks.self_dissimilarity import SelfDissimilarity, dissimilarity
from tests.gold.numbers import close, tensor


def test_attention_and_output_away_from_the_borders(gold):
    case = gold("nsda_a")
    window, margin = (int(case["window"]),) * 2, int(case["interior_margin"])
    inner = (..., slice(margin, -margin), slice(margin, -margin))
    x = tensor(case["x"]).requires_grad_()
    close(dissimilarity(x.detach(), window)[inner], case["attention"][inner], 1e-5)
    out = SelfDissimilarity(window)(nn.Identity(), (), x)
    close(out[inner], case["out"][inner], 1e-5)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    close(gradient[inner], case["grad_x_of_sum"][inner], 1e-5)
    assert case["attention_constant_input"].max() > 0.9  # what the padding does there
