"""Passes of a student, and what a step makes of groups of terms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunet_semisup.networks.decode import Decoded
from nnunet_semisup.training.passes import Pass, propagate

ZERO = torch.zeros(())


class Parts(NamedTuple):
    """What a network with codes gives: a tuple, and no member in it."""

    codes: list
    image: torch.Tensor | None


class TestMembers:
    @pytest.mark.parametrize(
        "parts", [None, {"distance": ZERO}, Parts([], None), (), [Decoded(ZERO, ())]]
    )
    def test_a_network_alone_is_its_only_member(self, parts):
        seen = Pass(ZERO, parts, {}, {})
        (one,) = seen.members
        assert one is seen

    def test_several_are_those_that_decoded(self):
        parts = tuple(Decoded(torch.tensor(float(n)), ()) for n in range(3))
        seen = Pass(parts[0].logits, parts, {}, {})
        assert [float(one.logits) for one in seen.members] == [0, 1, 2]

    def test_what_is_no_member_is_left_out(self):
        member = Decoded(ZERO, ())
        assert Pass(ZERO, (member, "codes"), {}, {}).members == (member,)


def weight():
    return torch.tensor(2.0, requires_grad=True)


@given(
    st.lists(st.dictionaries(st.sampled_from(["a", "b", "_c", "_d"]), st.floats(-8, 8)), max_size=4)
)
def test_the_gradient_is_that_of_the_sum_of_the_losses(groups):
    w = weight()
    terms = ({name: factor * w for name, factor in group.items()} for group in groups)
    total, logged = propagate(terms, nullcontext, None, ZERO)
    factors = [f for group in groups for name, f in group.items() if name[0] != "_"]
    assert float(total) == pytest.approx(2 * sum(factors), abs=1e-4)
    assert not total.requires_grad
    if factors:
        assert float(w.grad) == pytest.approx(sum(factors), abs=1e-4)
    else:
        assert w.grad is None
    expected = {name.lstrip("_"): 2 * f for group in groups for name, f in group.items()}
    assert {name: float(term) for name, term in logged.items()} == pytest.approx(expected)
    assert not any(term.requires_grad for term in logged.values())


def test_each_group_is_propagated_before_the_next_is_computed():
    w = weight()
    grads = []

    def groups() -> Iterator[dict]:
        for factor in (1.0, 2.0, 4.0):
            grads.append(None if w.grad is None else float(w.grad))
            yield {"loss": factor * w}

    propagate(groups(), nullcontext, None, ZERO)
    assert grads == [None, 1.0, 3.0]
    assert float(w.grad) == 7.0


def test_groups_without_gradient_and_none_at_all():
    total, logged = propagate(iter([{"loss": torch.ones(())}, {}]), nullcontext, None, ZERO)
    assert (float(total), float(logged["loss"])) == (1.0, 1.0)
    assert propagate(iter([]), nullcontext, None, ZERO) == (ZERO, {})


def test_terms_are_computed_within_and_propagated_outside_of_the_context():
    inside = []

    @contextmanager
    def autocast():
        inside.append(True)
        yield
        inside.pop()

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            states.append(len(inside))
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            states.append(len(inside))
            return grad

    states = []
    propagate(({"loss": Watched.apply(weight())} for _ in range(2)), autocast, None, ZERO)
    assert states == [1, 0, 1, 0]


def test_a_scaler_scales_the_gradient_and_not_the_loss():
    class Scaler:
        def scale(self, loss):
            return 1024 * loss

    w = weight()
    total, logged = propagate(iter([{"loss": 3 * w}]), nullcontext, Scaler(), ZERO)
    assert (float(total), float(logged["loss"]), float(w.grad)) == (6.0, 6.0, 3072.0)
