"""Measure everything that has a limit, in one table; write docs/performance.md from it.

    python benchmarks/performance.py measure [--output performance.json] [--parts start step]
    python benchmarks/performance.py write

``measure`` runs the parts one after the other, each in a process of its own with one thread, and
prints one table. ``write`` makes the page from docs/performance.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import growth
from rows import Row, table

from nnunet_semisup.benchmark.machine import processor

ROOT = Path(__file__).parents[1]
KEPT = Path("docs", "performance.json")
PAGE = Path("docs", "performance.md")
PICTURE = Path("docs", "images", "growth.png")
PARTS = {
    "start": "Start of the commands",
    "step": "A training step",
    "memory": "Memory of a training step",
    "loader": "Loading",
    "volumes": "Whole volumes",
    "growth": "Growth with the work",
}
"""Scripts with a function ``rows`` and what each is about."""
LIBRARIES = ("nnunetv2", "torch", "batchgenerators", "batchgeneratorsv2", "numpy", "scipy")
INTRO = """# Speed and memory

Each line is a ratio of this package's number to another one, both measured in one run; seconds are
processor time of one thread unless said otherwise. Where a line does not hold, the text below says
why. One command measures all of it, in {minutes} minutes of processor time on the machine below:

```bash
make bench BENCH=docs/performance.json
python benchmarks/performance.py write
```

{machine}
"""


def machine() -> dict[str, Any]:
    """Return what the numbers were measured on."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def measured(part: str) -> dict[str, Any]:
    """Return the rows of a part, which another process measures, and its processor seconds.

    Raises:
        RuntimeError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "rows.json")
        command = [sys.executable, __file__, "part", part, "--output", str(target)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "KINETO_LOG_LEVEL": "5"}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
        seconds = round(used.ru_utime + used.ru_stime)
        return {"seconds": seconds, "rows": json.loads(target.read_text(encoding="utf-8"))}


def measure(parts: Sequence[str], output: Path) -> None:
    """Measure parts, keep their numbers in a file beside those of other parts, print all of it."""
    before = json.loads(output.read_text(encoding="utf-8"))["parts"] if output.is_file() else {}
    for part in parts:
        print(f"{part}: {PARTS[part]}", file=sys.stderr)
        before[part] = measured(part)
        ordered = {name: before[name] for name in PARTS if name in before}
        content = {"machine": machine(), "parts": ordered}
        output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(described(content["machine"]))
    print(table([row for name in content["parts"] for row in rows_of(content["parts"][name])]))


def rows_of(part: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a part, as they are kept."""
    return [Row(**row) for row in part["rows"]]


def described(found: Mapping[str, Any]) -> str:
    """Return a sentence about the machine."""
    libraries = ", ".join(f"{name} {number}" for name, number in found["libraries"].items())
    return (
        f"{found['processor']}, {found['cores']} cores, {found['system']}, Python "
        f"{found['python']}; {libraries}."
    )


def page(root: Path) -> str:
    """Return the content of docs/performance.md, from what is kept."""
    kept = json.loads((root / KEPT).read_text(encoding="utf-8"))
    minutes = sum(part["seconds"] for part in kept["parts"].values()) / 60
    text = [INTRO.format(minutes=f"{minutes:.0f}", machine=described(kept["machine"]))]
    for name, part in kept["parts"].items():
        about = import_module(name).ABOUT.strip()
        text.append(f"## {PARTS[name]}\n\n{table(rows_of(part))}\n\n{about}\n")
    return "\n".join(text)


def main() -> None:
    """Measure, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    all_parts = commands.add_parser("measure", help="all parts, or those named")
    all_parts.add_argument("--output", type=Path, default=Path("performance.json"))
    all_parts.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    one = commands.add_parser("part", help="one part, into a file")
    one.add_argument("part", choices=PARTS)
    one.add_argument("--output", type=Path, required=True)
    commands.add_parser("write", help=f"{PAGE} from {KEPT}")
    options = parser.parse_args()
    if options.command == "measure":
        measure(options.parts, options.output)
    elif options.command == "part":
        rows = [asdict(row) for row in import_module(options.part).rows()]
        options.output.write_text(json.dumps(rows), encoding="utf-8")
    else:
        (ROOT / PAGE).write_text(page(ROOT), encoding="utf-8")
        kept = json.loads((ROOT / KEPT).read_text(encoding="utf-8"))
        growth.draw(rows_of(kept["parts"]["growth"]), ROOT / PICTURE)


if __name__ == "__main__":
    main()
