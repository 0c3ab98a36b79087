from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_semisup.losses.schedules import linear_rampup, sigmoid_rampup

RAMPS = pytest.mark.parametrize("ramp", [sigmoid_rampup, linear_rampup])
fractions = st.floats(0, 1)
lengths = st.floats(0.01, 1)


@RAMPS
@given(one=fractions, two=fractions, length=lengths)
@settings(deadline=None)
def test_rises_and_stays_within_zero_and_one(ramp, one, two, length):
    low, high = (ramp(p, length) for p in sorted((one, two)))
    assert 0 <= low <= high <= 1


@RAMPS
@given(length=lengths, past=st.floats(0, 5))
@settings(deadline=None)
def test_is_one_from_its_length_on(ramp, length, past):
    assert ramp(length + past, length) == 1


@RAMPS
@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_no_length_is_one_at_once(ramp, progress):
    assert ramp(progress, 0.0) == 1


@RAMPS
def test_negative_progress_is_the_start(ramp):
    assert ramp(-1.0, 0.5) == ramp(0.0, 0.5)


def test_by_hand():
    assert sigmoid_rampup(0.0, 0.4) == pytest.approx(math.exp(-5))
    assert sigmoid_rampup(0.2, 0.4) == pytest.approx(math.exp(-1.25))
    assert linear_rampup(0.0, 0.4) == 0
    assert linear_rampup(0.1, 0.4) == pytest.approx(0.25)
