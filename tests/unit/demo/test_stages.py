"""Stages run once, say what they do, and survive failures and interruptions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from nnunet_semisup.demo.stages import StageFailedError, Stages, run_interruptibly
from nnunet_semisup.errors import UserError

PYTHON = os.path.basename(sys.executable)


@pytest.fixture
def stages(tmp_path):
    return Stages(tmp_path / "stages", os.environ)


def test_a_finished_stage_runs_once(stages, capsys):
    calls = []
    for _ in range(2):
        stages.step("one", "Step one", lambda: calls.append(1))
    assert calls == [1]
    assert "done before" in capsys.readouterr().out
    assert stages.record("one").finished
    assert stages.record("two") is None


def test_a_failed_stage_runs_again(stages):
    with pytest.raises(ZeroDivisionError):
        stages.step("one", "Step one", lambda: print(1 / 0))
    assert not stages.record("one").finished
    stages.step("one", "Step one", lambda: None)
    assert stages.record("one").finished


def test_a_command_is_shown_with_its_variables(stages, tmp_path, capsys):
    code = f"import os; open({str(tmp_path / 'seen')!r}, 'w').write(os.environ['MINE'])"
    stages.command("write", "Write", [PYTHON, "-c", code], {"MINE": "a=1,b=2"})
    assert (tmp_path / "seen").read_text(encoding="utf-8") == "a=1,b=2"
    assert f'$ MINE="a=1,b=2" {PYTHON} -c' in capsys.readouterr().out
    assert stages.record("write").command.startswith('MINE="a=1,b=2"')


def test_a_failing_command_gives_its_code(stages):
    with pytest.raises(StageFailedError) as error:
        stages.command("fail", "Fail", [PYTHON, "-c", "raise SystemExit(3)"])
    assert error.value.code == 3


def test_a_missing_command_is_named(stages):
    with pytest.raises(UserError, match="no_such_command_here"):
        stages.command("missing", "Missing", ["no_such_command_here"])


def test_killed_commands_have_a_shells_code():
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run_interruptibly([sys.executable, "-c", code], os.environ) == 128 + signal.SIGKILL


def test_sigterm_reaches_the_command_which_may_finish(tmp_path):
    child = (
        "import signal, sys, time, pathlib\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "def save(*_):\n"
        "    (folder / 'saved').touch()\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "(folder / 'ready').touch()\n"
        "time.sleep(60)\n"
    )
    parent = (
        "import os, sys\n"
        "from nnunet_semisup.demo.stages import run_interruptibly\n"
        f"sys.exit(run_interruptibly([sys.executable, '-c', {child!r}], os.environ))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    assert process.wait(30) == 143
    assert (tmp_path / "saved").exists()
