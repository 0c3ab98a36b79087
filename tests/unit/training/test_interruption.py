from __future__ import annotations

import os
import signal
import threading

import pytest

from nnunet_semisup.training import interruption as module
from nnunet_semisup.training.interruption import SIGNALS, Interruption


@pytest.fixture(autouse=True)
def handlers():
    """Harmless handlers outside the context, restored after the test."""
    received = []
    before = {s: signal.signal(s, lambda n, _: received.append(n)) for s in SIGNALS}
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_first_signal_sets_the_flag_a_later_one_acts_as_before(number, handlers, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with Interruption() as interruption:
        assert interruption.signal_number is None
        os.kill(os.getpid(), number)
        assert interruption.signal_number == number
        assert handlers == []
        now[0] += module.GRACE + 0.1
        os.kill(os.getpid(), number)
        assert handlers == [number]


def test_signals_that_come_together_are_one(handlers):
    """As when a job is ended: SIGTERM to all of it, then SIGINT because the parent has gone."""
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.signal_number == signal.SIGTERM
    assert handlers == []


def test_handlers_are_restored():
    before = [signal.getsignal(s) for s in SIGNALS]
    with Interruption():
        assert [signal.getsignal(s) for s in SIGNALS] != before
    assert [signal.getsignal(s) for s in SIGNALS] == before
    with pytest.raises(RuntimeError, match="inside"), Interruption():
        raise RuntimeError("inside")
    assert [signal.getsignal(s) for s in SIGNALS] == before


def test_can_be_entered_again():
    interruption = Interruption()
    with interruption:
        os.kill(os.getpid(), signal.SIGTERM)
    with interruption:
        assert interruption.signal_number is None
        os.kill(os.getpid(), signal.SIGINT)
    assert interruption.signal_number == signal.SIGINT


def test_says_what_happens(capfd):
    with Interruption():
        os.kill(os.getpid(), signal.SIGTERM)
    assert "SIGTERM: saving after this step" in capfd.readouterr().err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_forked_workers_ignore_ctrl_c_and_die_on_sigterm():
    with Interruption() as interruption:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGINT)
            if interruption.signal_number is not None:
                os._exit(1)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(2)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGTERM
    assert interruption.signal_number is None


def test_installs_nothing_outside_the_main_thread():
    seen = []

    def work():
        before = [signal.getsignal(s) for s in SIGNALS]
        with Interruption():
            seen.append([signal.getsignal(s) for s in SIGNALS] == before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
