"""Time how long commands take to answer, and what the discovery adds to a start of Python.

    python benchmarks/start.py [--runs 7]

Processor time of processes of their own, the least of several; wall time as well where nothing else
runs. What the discovery adds is measured inside: the file that Python reads at its start.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from rows import Row, allowed, table

ROOT = Path(__file__).parents[1]
ABOUT = """
The least of seven processes. The discovery's line is read whenever a Python of the environment
starts; it is timed with its import, in a new process.
"""
DISCOVERY = """
import os, sys
import time
start = time.perf_counter()
exec(open({path!r}).read())
print(time.perf_counter() - start)
"""


def scripts() -> dict[str, str]:
    """Return the commands of the package, and the module of each."""
    from importlib.metadata import entry_points

    found = entry_points(group="console_scripts")
    return {e.name: e.module for e in found if e.name.startswith("nnUNetv2_semisup")}


def seconds(program: list[str]) -> float:
    """Return the processor seconds of a process with all its children."""
    with open(os.devnull, "wb") as silence:
        process = subprocess.Popen(program, stdout=silence)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, program
    return used.ru_utime + used.ru_stime


def ask(module: str, *arguments: str) -> list[str]:
    """Return the program that a command is."""
    code = f"import sys; sys.argv[1:] = {list(arguments)}; from {module} import main; main()"
    return [sys.executable, "-c", code]


def discovery() -> float:
    """Return the seconds that a new Python spends on the discovery's line."""
    code = DISCOVERY.format(path=str(ROOT / "nnunet_semisup_discovery.pth"))
    environment = {**os.environ, "NNUNET_SEMISUP_DISCOVERY": "1", "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-S", "-c", code]
    done = subprocess.run(program, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def rows(runs: int = 7) -> list[Row]:
    """Measure every command."""
    commands = scripts()
    times = {
        name: min(seconds(ask(module, "--help")) for _ in range(runs))
        for name, module in commands.items()
    }
    slowest = max(times, key=lambda name: times[name])
    table_of_methods = ask(commands["nnUNetv2_semisup_info"])
    info = min(seconds(table_of_methods) for _ in range(runs))
    found = 1e3 * min(discovery() for _ in range(runs))
    return [
        allowed("nnUNetv2_semisup_info", info, 0.15, "s"),
        allowed(f"slowest --help of {len(times)} ({slowest})", times[slowest], 0.3, "s"),
        allowed("discovery at each start of Python", found, 3.0, "ms"),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    print(table(rows(parser.parse_args().runs)))


if __name__ == "__main__":
    main()
