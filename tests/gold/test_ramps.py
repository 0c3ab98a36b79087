"""The schedules against recorded values, in the authors' counting of steps."""

from __future__ import annotations

import pytest

from nnunet_semisup.losses.schedules import linear_rampup, sigmoid_rampup

TOLERANCE = 1e-12


@pytest.fixture
def ramps(gold):
    return gold("ramps_a")


@pytest.mark.parametrize(
    ("name", "ramp"), [("sigmoid_rampup", sigmoid_rampup), ("linear_rampup", linear_rampup)]
)
def test_rampup(ramps, name, ramp):
    for length, expected in zip(ramps["rampup_length"], ramps[name], strict=True):
        got = [ramp(float(t), float(length)) for t in ramps["t"]]
        assert got == pytest.approx(expected.tolist(), abs=TOLERANCE, rel=0)


def test_consistency_weight(ramps):
    ticks = ramps["iterations"] // int(ramps["steps_per_tick"])
    for length, expected in zip(ramps["rampup_length"], ramps["consistency_weight"], strict=True):
        got = [float(ramps["w_max"]) * sigmoid_rampup(float(t), float(length)) for t in ticks]
        assert got == pytest.approx(expected.tolist(), abs=TOLERANCE, rel=0)
