"""Conversion of the left-atrium scans: what it costs, and whether every voxel arrived.

    python benchmarks/convert_la.py RAW --split RAW/splits.json --work DIR [-np N]

``RAW`` holds ``Training Set/CASE/lgemri.nrrd`` and ``laendo.nrrd``. Runs the two commands, compares
the voxels of every file with its source through SimpleITK alone, and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import SimpleITK

DATASET_ID = 508


def main() -> None:
    """Convert, verify, copy and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="new folder for the results")
    parser.add_argument("-np", type=int, default=1)
    arguments = parser.parse_args()
    environment = dict(os.environ)
    for name in ("raw", "preprocessed", "results"):
        folder = arguments.work / f"nnUNet_{name}"
        folder.mkdir(parents=True)
        environment[f"nnUNet_{name}"] = str(folder)
    convert = [
        *("nnUNetv2_semisup_convert", "la", str(arguments.raw), "-d", str(DATASET_ID)),
        *("--labeled", "8", "--split", str(arguments.split), "-np", str(arguments.np)),
    ]
    verify = ["nnUNetv2_semisup_verify", str(DATASET_ID), "-np", str(arguments.np)]
    converted, convert_cpu, output = _timed(convert, environment)
    verified, verify_cpu, summary = _timed(verify, environment)
    made = arguments.work / "nnUNet_raw" / f"Dataset{DATASET_ID}_LA2018"
    report = json.loads((made / "conversion_report.json").read_text())
    files, compared = _compare(made, report)
    copied = _copy(report, arguments.work / "copy")
    rows = {
        "cases": len(report["cases"]),
        "files written and compared": files,
        "voxels compared": f"{compared:,}",
        "pairs of one acquisition": output.count("are one acquisition twice"),
        "processes": arguments.np,
        "conversion: wall, processor (s)": f"{converted:.1f}, {convert_cpu:.1f}",
        "verification: wall, processor (s)": f"{verified:.1f}, {verify_cpu:.1f}",
        "plain copy of the sources (s)": f"{copied:.2f}",
        "conversion / copy, wall": f"{converted / copied:.0f}",
        "conversion of one case, processor (s)": f"{convert_cpu / len(report['cases']):.2f}",
    }
    print("\n".join(line for line in output.splitlines() if "acquisition" in line))
    print(summary.splitlines()[-1])
    print(
        "\n| | |\n|---|---:|\n" + "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    )


def _timed(command: list[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """Wall time, processor time and standard output of a command that must end with 0."""
    start, cpu = time.perf_counter(), _children_cpu()
    path = Path(sys.executable).with_name(command[0])
    done = subprocess.run(
        [str(path), *command[1:]], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return time.perf_counter() - start, _children_cpu() - cpu, done.stdout


def _children_cpu() -> float:
    """Processor time of all children that have ended, their own children included."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _compare(made: Path, report: dict) -> tuple[int, int]:
    """Compare every written file with its source; number of files and voxels.

    Raises:
        AssertionError: a sum or a voxel differs.
    """
    files, voxels = 0, 0
    for case in report["cases"].values():
        for entry in [*case["images"], *([case["label"]] if case["label"] else [])]:
            source, written = (
                SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
                for path in (entry["source"], made / entry["file"])
            )
            if entry is case["label"]:
                assert set(source.ravel().tolist()) <= {0, 255}
                source = source // 255
            assert source.sum(dtype=float) == written.sum(dtype=float), entry["file"]
            assert (source == written).all(), entry["file"]
            files += 1
            voxels += source.size
    return files, voxels


def _copy(report: dict, folder: Path) -> float:
    """Wall time of copying the same source files."""
    sources = [entry["source"] for case in report["cases"].values() for entry in case["images"]]
    sources += [case["label"]["source"] for case in report["cases"].values() if case["label"]]
    folder.mkdir()
    start = time.perf_counter()
    for number, source in enumerate(sources):
        shutil.copyfile(source, folder / f"{number}.nrrd")
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
