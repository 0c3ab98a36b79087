"""Time and memory of nnUNetv2_semisup_predict against nnUNetv2_predict, on one model and images.

    python benchmarks/prediction.py -m MODEL_FOLDER -f 0 -i IMAGES

The two commands take turns, in both orders, as processes of their own. Ratios are of the medians;
memory is the greatest of a command's processes (resident set, Linux).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = {
    "nnUNetv2_predict": "from nnunetv2.inference.predict_from_raw_data import "
    "predict_entry_point_modelfolder as main; main()",
    "nnUNetv2_semisup_predict": "from nnunet_semisup.cli.predict import main; main()",
}
QUANTITIES = ("wall (s)", "CPU (s)", "peak memory (MiB)")


def measure(code: str, arguments: list[str]) -> tuple[float, float, float]:
    """Run a command and return its :data:`QUANTITIES`.

    Raises:
        RuntimeError: it failed; with its output.
    """
    start = time.monotonic()
    with tempfile.TemporaryFile() as output:
        command = [sys.executable, "-c", code, *arguments]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(output.read().decode(errors="replace"))
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def same_files(folders: list[Path]) -> bool:
    """Tell whether two folders have the same files, but for the record of the arguments."""
    contents = [
        {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.endswith("_args.json")}
        for folder in folders
    ]
    return contents[0] == contents[1]


def main() -> None:
    """Measure both commands in turns and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-m", required=True, help="model folder")
    parser.add_argument("-i", required=True, help="images")
    parser.add_argument("-f", nargs="+", default=["0"], help="folds")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--pairs", type=int, default=4, help="runs of each command")
    options = parser.parse_args()
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as root:
        outputs = {name: Path(root, name) for name in COMMANDS}
        for turn in range(options.pairs):
            for name in sorted(COMMANDS, reverse=bool(turn % 2)):
                model = ["-m", options.m, "-f", *options.f, "-device", options.device]
                arguments = ["-i", options.i, "-o", str(outputs[name]), *model]
                found[name].append(measure(COMMANDS[name], arguments))
        print(f"same files: {same_files(list(outputs.values()))}")
    stock, ours = (found[name] for name in COMMANDS)
    for number, quantity in enumerate(QUANTITIES):
        theirs, own = (statistics.median(run[number] for run in runs) for runs in (stock, ours))
        print(f"{quantity}: nnU-Net {theirs:.2f}, ours {own:.2f}, ratio {own / theirs:.3f}")


if __name__ == "__main__":
    main()
