"""The course of quantizers over a training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunet_semisup.training.quantizer_warmup import QuantizerWarmup

PROGRESS = st.floats(0, 1)


class Quantizer:
    """Records what is asked of it."""

    def __init__(self):
        self.mix = torch.zeros(())
        self.fits = []
        self.calibrations = []

    def fit(self, mean, covariance):
        self.fits.append((mean, covariance))

    def calibrate(self, perplexity):
        self.calibrations.append(perplexity)


def network(stages=2):
    quantizers = [Quantizer() for _ in range(stages)]
    tokens = [torch.full((4, 3), float(stage)) for stage in range(stages)]
    return SimpleNamespace(quantizers=quantizers, tokens=lambda image: tokens)


def run(warmup, made, course):
    for step, progress in course:
        warmup.update(made, torch.zeros(1), step, progress)
    return made.quantizers


@given(st.floats(0, 1), st.lists(PROGRESS, min_size=1, max_size=20))
def test_the_mix_never_falls(length, course):
    warmup, made = QuantizerWarmup(length, 5, False, None), network()
    mixes = []
    for step, progress in enumerate(course):
        run(warmup, made, [(step, progress)])
        mixes.append(warmup.mix)
        assert all(float(q.mix) == pytest.approx(warmup.mix) for q in made.quantizers)
    assert mixes == sorted(mixes)
    assert all(0 <= mix <= 1 for mix in mixes)
    if max(course) >= length:
        assert mixes[-1] == 1


def test_codes_are_fitted_until_the_warm_up_has_ended():
    course = [(step, step / 20) for step in range(20)]
    fitted = run(QuantizerWarmup(0.5, 2, True, None), network(), course)
    assert [len(q.fits) for q in fitted] == [6, 6], "steps 0, 2 ... 10"
    mean, covariance = fitted[1].fits[0]
    assert mean.tolist() == [1, 1, 1]
    assert covariance.abs().max() == 0
    assert not any(q.calibrations for q in fitted)


def test_a_run_that_gets_more_epochs_does_not_fit_again():
    warmup, made = QuantizerWarmup(0.5, 1, True, None), network(1)
    run(warmup, made, [(0, 0.0), (1, 0.5)])
    run(warmup, made, [(2, 0.1), (3, 0.2)])
    assert len(made.quantizers[0].fits) == 2
    assert warmup.mix == 1


@pytest.mark.parametrize(("fit", "perplexity"), [(False, None), (False, 32.0), (True, 32.0)])
def test_only_what_is_asked_for_is_done(fit, perplexity):
    (made,) = run(
        QuantizerWarmup(1.0, 3, fit, perplexity), network(1), [(n, 0.1) for n in range(7)]
    )
    assert len(made.fits) == (3 if fit else 0)
    assert made.calibrations == ([] if perplexity is None else [perplexity] * 3)
