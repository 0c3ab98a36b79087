"""Convert the left-atrium scans: measure what it costs, and check that every voxel arrived.

    python benchmarks/convert_la.py RAW --split RAW/splits.json --work DIR [-np N]

``RAW`` holds ``Training Set/CASE/lgemri.nrrd`` and ``laendo.nrrd``, or ``CASE/mri_norm2.h5``. Runs
the commands, compares the voxels of every file with its source through SimpleITK and h5py alone,
and prints a table. Options after ``--`` go to the conversion (``--labeled 8`` without any).
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
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import SimpleITK

DATASET_ID = 508


def main() -> None:
    """Convert, verify, copy and compare."""
    arguments = _arguments()
    environment = dict(os.environ)
    for name in ("raw", "preprocessed", "results"):
        folder = arguments.work / f"nnUNet_{name}"
        folder.mkdir(parents=True)
        environment[f"nnUNet_{name}"] = str(folder)
    processes = ("-np", str(arguments.np))
    convert = [
        *("nnUNetv2_semisup_convert", "la", str(arguments.raw), "-d", str(DATASET_ID)),
        *("--split", str(arguments.split), *processes, *arguments.options),
    ]
    checked, check_cpu, _ = _timed([*convert, "--dry-run"], environment)
    converted, convert_cpu, output = _timed(convert, environment)
    verify = ["nnUNetv2_semisup_verify", str(DATASET_ID), *processes]
    verified, verify_cpu, summary = _timed(verify, environment)
    made = arguments.work / "nnUNet_raw" / f"Dataset{DATASET_ID}_LA2018"
    report = json.loads((made / "conversion_report.json").read_text(encoding="utf-8"))
    files, voxels, total = _compare(made, report)
    copied = _each_file(report, arguments.work / "copy", _copy)
    start = time.process_time()
    bare = _each_file(report, arguments.work / "bare", _reencode)
    bare_cpu = time.process_time() - start
    rows = {
        "cases": len(report["cases"]),
        "files written and compared": files,
        "voxels compared, all equal": f"{voxels:,}",
        "sum of the image voxels, source and result": f"{total[0]:.10g}, {total[1]:.10g}",
        "sum of the label voxels, source and result": f"{total[2]:.10g}, {total[3]:.10g}",
        "nnU-Net's verify_dataset_integrity": _by_nnunet(summary),
        "pairs that look like the same scan": output.count("look like the same scan"),
        "processes": arguments.np,
        "conversion: wall, processor (s)": f"{converted:.1f}, {convert_cpu:.1f}",
        "its checks alone (--dry-run): wall, processor (s)": f"{checked:.1f}, {check_cpu:.1f}",
        "verification: wall, processor (s)": f"{verified:.1f}, {verify_cpu:.1f}",
        "plain copy of the sources (s)": f"{copied:.2f}",
        "bare change of the format: wall, processor (s)": f"{bare:.1f}, {bare_cpu:.1f}",
        "conversion / copy, wall": f"{converted / copied:.0f}",
        "conversion / bare change of the format, processor": f"{convert_cpu / bare_cpu:.1f}",
        "conversion of one case, processor (s)": f"{convert_cpu / len(report['cases']):.2f}",
    }
    print("\n".join(line for line in output.splitlines() if "same scan" in line))
    print(summary.splitlines()[-1])
    print(
        "\n| | |\n|---|---:|\n" + "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path, help="folder of the scans, as for the la command")
    parser.add_argument("--split", type=Path, required=True, help="json file with the lists")
    parser.add_argument("--work", type=Path, required=True, help="new folder for the results")
    parser.add_argument("-np", type=int, default=1, help="processes (default: %(default)s)")
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    arguments = parser.parse_args(given[:end])
    arguments.options = given[end + 1 :] or ["--labeled", "8"]
    return arguments


def _by_nnunet(output: str) -> str:
    """Say whether nnU-Net's own check, which ends the verification, came to its end."""
    return "passed" if "verify_dataset_integrity Done" in output else "did not pass"


def _timed(command: list[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """Return wall time, processor time and standard output of a command that must end with 0."""
    start, cpu = time.perf_counter(), _children_cpu()
    path = Path(sys.executable).with_name(command[0])
    done = subprocess.run(
        [str(path), *command[1:]],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    return time.perf_counter() - start, _children_cpu() - cpu, done.stdout


def _children_cpu() -> float:
    """Return the processor time of all children that have ended, their own children included."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _written_files(report: dict) -> Iterator[tuple[dict, bool]]:
    """Yield every written file's entry in the report, and whether it is a label."""
    for case in report["cases"].values():
        for entry in case["images"]:
            yield entry, False
        if case["label"]:
            yield case["label"], True


def _source(path: Path, is_label: bool) -> np.ndarray:
    """Read the voxels of a source, ``(z, y, x)``; labels as 0 and 1."""
    if path.suffix == ".h5":
        with h5py.File(path, "r") as file:
            return np.asarray(file["label" if is_label else "image"]).T
    array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    if not is_label:
        return array
    assert set(np.unique(array)) <= {0, 255}
    return array // 255


def _compare(made: Path, report: dict) -> tuple[int, int, list[float]]:
    """Compare every written file with its source.

    Returns:
        Files, voxels, and the sums of image and label voxels of the sources and of the results.

    Raises:
        AssertionError: a voxel differs.
    """
    files, voxels, total = 0, 0, [0.0] * 4
    for entry, is_label in _written_files(report):
        source = _source(Path(entry["source"]), is_label)
        written = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(made / entry["file"])))
        assert source.shape == written.shape, entry["file"]
        assert (source == written).all(), entry["file"]
        total[2 * is_label] += source.sum(dtype=float)
        total[2 * is_label + 1] += written.sum(dtype=float)
        files += 1
        voxels += source.size
    return files, voxels, total


def _each_file(report: dict, folder: Path, act: Callable[[Path, Path, bool], None]) -> float:
    """Return the wall time of doing one thing with every source file."""
    folder.mkdir()
    start = time.perf_counter()
    for number, (entry, is_label) in enumerate(_written_files(report)):
        act(Path(entry["source"]), folder / str(number), is_label)
    return time.perf_counter() - start


def _copy(source: Path, target: Path, _: bool) -> None:
    shutil.copyfile(source, target)


def _reencode(source: Path, target: Path, is_label: bool) -> None:
    """Do what a script of a few lines does: read, write as NIfTI."""
    image = SimpleITK.GetImageFromArray(_source(source, is_label))
    SimpleITK.WriteImage(image, f"{target}.nii.gz", useCompression=True)


if __name__ == "__main__":
    main()
