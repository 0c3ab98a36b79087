"""Measure what handles whole volumes: metrics, conversion, preprocessing of unlabeled scans.

    python benchmarks/volumes.py [--raw FOLDER] [--parts metrics convert preprocess]

Volumes of the left atrium's kind are made up; ``FOLDER`` has the challenge's ``CASE/lgemri.nrrd``
and ``laendo.nrrd`` and replaces them for the conversion. Libraries that are not installed
(medpy, monai, surface-distance-based-measures, panoptica) have a row that says so.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from rows import Row, missing, table
from volume_parts import libraries
from volume_parts.atrium import SPACING, masks, scan, write

ABOUT = """
Metrics are Dice, Jaccard, HD95 and both surface distances of one pair of masks, or as many of them
as a library has, by its fastest functions; MedPy and panoptica, which do not look for the box of a
mask, are measured on the smaller masks only. Memory is what the process has grown by, over the
bytes of the two masks.

A conversion cannot come near a copy: the challenge's files are compressed, so that looking at every
voxel once takes longer than copying the files, as the second line shows. Linked images are read
once, for the checks, and what lies in its place is compared by its bytes. What remains is, in
order, decompression, counting values, the search for scans that are there twice, and hashes;
`--link copy` compresses and reads back every image on top.

Preprocessing is nnU-Net's function of one case with its label, and the check and preprocessing of
the same image without one, at the plan's spacing and at 1 mm; starting the program is left out.
"""
FULL = (88, 576, 576)
CROPPED = (88, 144, 192)
CONVERTED = (88, 288, 288)
CASES = 6
PLAN_SPACINGS = {"nothing to resample": SPACING, "resampled": 1.0}
PARTS = ("metrics", "convert", "preprocess")


def cpu(act: Callable[[], Any], times: int = 1) -> float:
    """Return the least processor time of some calls, in ms."""
    found = []
    for _ in range(times):
        start = time.process_time()
        act()
        found.append(1000 * (time.process_time() - start))
    return min(found)


def metrics_rows() -> list[Row]:
    """Compare the metrics of a good and of a poor prediction with other libraries."""
    found = []
    for kind in ("good", "poor"):
        for shape in (FULL, CROPPED):
            size = " x ".join(map(str, shape))
            what = f"metrics, {kind} prediction, {size}"
            found += _compared(what, masks(shape, kind), shape == FULL)
    small = [masks(CROPPED, kind) for kind in ("good", "poor")]
    found += libraries.differences(small, (0.625, 0.7, 1.25))
    prediction, reference = masks(FULL, "good")
    size = (prediction.nbytes + reference.nbytes) / 2**20
    found.append(Row("memory of the metrics", memory(), size, "both masks", "MiB", 1.5))
    return found


def _compared(what: str, pair: tuple[np.ndarray, np.ndarray], large: bool) -> list[Row]:
    """Return a row for each library; those that are slow are left out where masks are large."""
    case = (*pair, (SPACING,) * 3)
    ours = cpu(lambda: libraries.ours(*case), 5)
    found = []
    for name, library in libraries.LIBRARIES.items():
        if large and library.slow:
            continue
        if absent := missing(what, library.module, library.package):
            found.append(absent)
            continue
        library.measure(*(mask[::4, ::4, ::4] for mask in pair), case[2])
        theirs = cpu(partial(library.measure, *case), library.times)
        found.append(Row(what, ours, theirs, name, "ms", library.limit))
    return found


GROWTH = """
import sys
from pathlib import Path
import numpy as np
from nnunet_semisup.evaluation.metrics import compute_metrics
pair = [np.load(path) for path in sys.argv[1:]]
small = [mask[:8, :8, :8] | True for mask in pair]
compute_metrics(*small, (1.0,) * 3)
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
Path("/proc/self/clear_refs").write_text("5")
before = peak()
compute_metrics(*pair, (1.0,) * 3)
print(peak() - before)
"""


def memory() -> float:
    """Return by how many MiB a process grows that computes the metrics (Linux)."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, f"{number}.npy")) for number in range(2)]
        for path, mask in zip(paths, masks(FULL, "good"), strict=True):
            np.save(path, mask)
        command = [sys.executable, "-c", GROWTH, *paths]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024


def convert_rows(raw: Path | None = None) -> list[Row]:
    """Compare a conversion that links its images with a copy and with reading every file once."""
    with tempfile.TemporaryDirectory() as root, nnunet_folders(Path(root)):
        source = raw or make_challenge(Path(root, "challenge"))
        split = write_split(source, Path(root, "split.json"))
        found = list(read_files(source))
        start = time.perf_counter()
        copies = Path(root, "copy")
        copies.mkdir()
        for number, path in enumerate(found):
            shutil.copyfile(path, copies / str(number))
        copied = time.perf_counter() - start
        read = cpu(lambda: [SimpleITK.ReadImage(str(path)) for path in found]) / 1000
        linkable = copies_to_link(source, Path(root, "linked"))
        timed = [convert(linkable, split, *extra) for extra in (("--link", "hardlink"), ())]
    what = f"conversion of {len(found)} files"
    (linked, linked_cpu), (_, copied_cpu) = timed
    return [
        Row(f"{what}, images linked, wall", linked, copied, "plain copy", "s", 3.0),
        Row("reading each of them once, no check", read, copied, "plain copy", "s", None),
        Row(f"{what}, images linked", linked_cpu, read, "reading each once", "s", None),
        Row(f"{what}, images written as NIfTI", copied_cpu, read, "reading each once", "s", None),
    ]


@contextmanager
def nnunet_folders(root: Path) -> Iterator[None]:
    """Let nnU-Net's variables name folders below ``root``."""
    before = dict(os.environ)
    for name in ("raw", "preprocessed", "results"):
        folder = root / f"nnUNet_{name}"
        folder.mkdir()
        os.environ[f"nnUNet_{name}"] = str(folder)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def make_challenge(root: Path) -> Path:
    """Write made-up cases as the challenge's archive has them; a label for every second one."""
    for number in range(CASES):
        image, label = scan(CONVERTED, number)
        folder = root / "Training Set" / f"CASE{number}"
        folder.mkdir(parents=True)
        write(image, folder / "lgemri.nrrd")
        if number % 2 == 0:
            write(label * 255, folder / "laendo.nrrd")
    return root


def write_split(source: Path, path: Path) -> Path:
    """Write the split: half of the cases with a label are labeled, the rest validation."""
    cases = sorted(file.parent for file in source.rglob("lgemri.nrrd"))
    with_label = [case.name for case in cases if (case / "laendo.nrrd").exists()]
    half = (len(with_label) + 1) // 2
    content = {
        "labeled": with_label[:half],
        "validation": with_label[half:],
        "unlabeled": [case.name for case in cases if case.name not in with_label],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def read_files(source: Path) -> Iterator[Path]:
    """Yield the files that the conversion reads."""
    for name in ("lgemri.nrrd", "laendo.nrrd"):
        yield from sorted(source.rglob(name))


def copies_to_link(source: Path, target: Path) -> Path:
    """Copy the files to the disk that has the results, as hard links need it."""
    for path in read_files(source):
        copy = target / "Training Set" / path.parent.name / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return target


def convert(source: Path, split: Path, *extra: str) -> tuple[float, float]:
    """Convert in a process of its own; return its wall and processor time in s."""
    command = [sys.executable, "-c", "from nnunet_semisup.cli.convert import main; main()", "la"]
    command += [str(source), "-d", "508", "--split", str(split), "-np", "1", "--overwrite", *extra]
    labeled = len(json.loads(split.read_text(encoding="utf-8"))["labeled"])
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, "--labeled", str(labeled)], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, used


def preprocess_rows() -> list[Row]:
    """Compare an unlabeled image with nnU-Net's preprocessing of the same one and its label."""
    with tempfile.TemporaryDirectory() as root, nnunet_folders(Path(root)):
        folder = Path(root)
        image, label = scan(FULL, 0)
        paths = folder / "case_0000.nii.gz", folder / "case.nii.gz"
        write(image, paths[0])
        write(label, paths[1])
        return [_preprocessed(folder, *paths, *what) for what in PLAN_SPACINGS.items()]


def _preprocessed(folder: Path, image: Path, label: Path, what: str, spacing: float) -> Row:
    from nnunet_semisup.preparation.images_only import preprocessor_of
    from nnunet_semisup.preparation.unlabeled_case import Reference, inspect_unlabeled

    plans = plans_for(spacing)
    configuration = plans.get_configuration("3d_fullres")
    content = {"labels": {"background": 0, "atrium": 1}, "channel_names": {"0": "MR"}}
    ranges = ((SPACING, SPACING),) * 3
    reference = Reference(plans.image_reader_writer_class, 1, 1, 3, "mm", 1.0, ranges)

    def run(kind: Any, name: str, *of_label: str | None) -> None:
        for old in folder.glob(f"{name}.*"):
            old.unlink()
        for old in folder.glob(f"{name}_seg.*"):
            old.unlink()
        kind(verbose=False).run_case_save(
            str(folder / name), [str(image)], *of_label, plans, configuration, content
        )

    def ours() -> None:
        faults = inspect_unlabeled("case", [image], None, reference).faults
        assert not faults, faults
        run(preprocessor_of(configuration), "unlabeled", None)

    def stock() -> None:
        run(configuration.preprocessor_class, "labeled", str(label))

    stock()
    return Row(f"preprocessing, {what}", cpu(ours, 2), cpu(stock, 2), "nnU-Net", "ms", 0.8)


def plans_for(spacing: float) -> Any:
    """Return a plan as nnU-Net makes it, for scans of one channel."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    resampling = {}
    for what, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        settings = {"is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None}
        resampling[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        resampling[f"resampling_fn_{what}_kwargs"] = settings
    configuration = {
        "architecture": {},
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": [96, 128, 192],
        "spacing": [spacing] * 3,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        **resampling,
    }
    return PlansManager(
        {
            "image_reader_writer": "SimpleITKIO",
            "label_manager": "LabelManager",
            "transpose_forward": [0, 1, 2],
            "foreground_intensity_properties_per_channel": {"0": {}},
            "configurations": {"3d_fullres": configuration},
        }
    )


def rows(raw: Path | None = None, parts: tuple[str, ...] = PARTS) -> list[Row]:
    """Measure all parts, or those named.

    Args:
        raw: the challenge's folder, instead of made-up scans.
        parts: of :data:`PARTS`.
    """
    made = {"metrics": metrics_rows, "convert": lambda: convert_rows(raw)}
    made["preprocess"] = preprocess_rows
    return [row for part in parts for row in made[part]()]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", type=Path, help="folder of the challenge's scans")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    print(table(rows(options.raw, tuple(options.parts))))


if __name__ == "__main__":
    main()
