import os

import pytest

from nnunet_semisup.cli._run import run_command
from nnunet_semisup.errors import WorkerError
from nnunet_semisup.parallel import run_parallel


def _double(value):
    if value < 0:
        raise ValueError("negative")
    return 2 * value


def _die(value):
    os._exit(value)


@pytest.mark.parametrize("num_processes", [0, 2])
def test_results_keep_names_and_order(num_processes):
    arguments = {f"case_{i}": (i,) for i in (3, 1, 2)}
    results = run_parallel(_double, arguments, num_processes, "test", show_progress=False)
    assert list(results.items()) == [("case_3", 6), ("case_1", 2), ("case_2", 4)]


@pytest.mark.parametrize("num_processes", [0, 1])
def test_failure_names_the_case(num_processes):
    with pytest.raises(RuntimeError, match="case bad failed: ValueError: negative"):
        run_parallel(_double, {"good": (1,), "bad": (-1,)}, num_processes, "test", False)


def test_killed_process_is_noticed():
    with pytest.raises(WorkerError, match="process was killed"):
        run_parallel(_die, {"case": (9,)}, 1, "test", False)


def test_a_command_says_so_without_a_traceback(capsys):
    with pytest.raises(SystemExit) as error:
        run_command(lambda: run_parallel(_die, {"case": (9,)}, 1, "test", False) and None)
    assert error.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith("error: A background process was killed")
    assert "fewer processes than 1 (-np)" in message


def _no_space(value):
    raise OSError(28, "No space left on device", f"file{value}")


@pytest.mark.parametrize(("function", "traceback"), [(_no_space, False), (_double, True)])
@pytest.mark.parametrize("num_processes", [0, 1])
def test_a_command_ends_with_the_case_that_failed(capsys, num_processes, function, traceback):
    with pytest.raises(SystemExit) as error:
        run_command(lambda: run_parallel(function, {"x": (-1,)}, num_processes, "", False) and None)
    assert error.value.code == 1
    told = capsys.readouterr().err
    assert ("Traceback" in told) == traceback
    *_, last, advice = told.splitlines()
    assert last.startswith("error: case x failed: ")
    assert advice == "Settle that, then run the same command again."


def test_nothing_to_do():
    assert run_parallel(_double, {}, 4, "test") == {}
