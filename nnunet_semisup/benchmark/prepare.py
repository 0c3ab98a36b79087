"""A data set of its own for each budget: linked images, plans, preprocessed cases."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_semisup.atomic import link_or_copy
from nnunet_semisup.benchmark.design import STOCK_PLANS, Design, Layout
from nnunet_semisup.demo.stages import find_command
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.labeled_classes import read_labeled_classes
from nnunet_semisup.preparation.layout import LABELED_CLASSES_FILE, SPLITS_FILE
from nnunet_semisup.preparation.raw import (
    in_order,
    list_images,
    read_dataset_json,
    training_images,
    training_labels,
)

PLANNED, PREPARED = "planned", "prepared"
_LOG = "prepare.txt"
_ACCEPTED = ["--allow-empty", "--allow-constant-channels"]
"""What the data set was accepted with stands in its own folder, not in a budget's."""


def environment(layout: Layout, budget: int, results: Path | None = None) -> dict[str, str]:
    """Return nnU-Net's variables for a budget, and those of this process.

    Args:
        layout: of the benchmark.
        budget: number of labeled cases.
        results: folder of a run's results.
    """
    folder = layout.budget(budget).absolute()
    return {
        **os.environ,
        "nnUNet_raw": str(folder / "raw"),
        "nnUNet_preprocessed": str(folder / "preprocessed"),
        "nnUNet_results": str(results.absolute() if results else folder / "results"),
    }


def forget(layout: Layout) -> None:
    """Let every budget be planned anew: what is there was planned for a design that is not kept."""
    for mark in layout.folder.glob(f"labels*/{PLANNED}"):
        mark.unlink()


def plan(layout: Layout, design: Design, budget: int, processes: int) -> None:
    """Link a budget's labeled and unlabeled images, and plan; what is done is kept.

    Fingerprint and plans see the labeled cases of the budget and no other label.

    Raises:
        UserError: a command failed; with the end of what it said.
    """
    folder = layout.budget(budget)
    if (folder / PLANNED).is_file():
        return
    raw = folder / "raw" / design.dataset
    (folder / PREPARED).unlink(missing_ok=True)
    for name in ("raw", "preprocessed"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    labeled = design.labeled(budget)
    hidden = [case for case in (*design.pool, *design.unlabeled) if case not in labeled]
    _link_labeled(design, raw, labeled)
    _link_images(Path(design.raw), design, hidden, raw / "imagesUn")
    spacing = ["-overwrite_target_spacing", *map(str, design.spacing)] if design.spacing else []
    command = ["nnUNetv2_semisup_plan_and_preprocess", "-d", str(design.dataset_id), "--no_pp"]
    command += ["-c", design.configuration, "-npfp", str(processes), "-pl", design.planner]
    command += _ACCEPTED
    memory = ["-gpu_memory_target", f"{design.gpu_memory:g}"] if design.gpu_memory else []
    _call(layout, budget, [*command, "-overwrite_plans_name", STOCK_PLANS, *spacing, *memory])
    if design.features:
        _cut_features(layout.preprocessed(design, budget) / f"{STOCK_PLANS}.json", design)
    (folder / PLANNED).touch()


def prepare(layout: Layout, design: Design, budget: int, processes: int) -> None:
    """Add the evaluation cases, write the split and preprocess; what is done is kept.

    Raises:
        UserError: a command failed; with the end of what it said.
    """
    plan(layout, design, budget, processes)
    folder = layout.budget(budget)
    number, configuration = str(design.dataset_id), ["-c", design.configuration]
    if not (folder / PREPARED).is_file():
        raw, preprocessed = folder / "raw" / design.dataset, layout.preprocessed(design, budget)
        labeled = design.labeled(budget)
        _link_labeled(design, raw, [*labeled, *design.evaluation])
        shutil.copy(raw / "dataset.json", preprocessed)
        split = [{"train": list(labeled), "val": list(design.evaluation)}]
        (preprocessed / SPLITS_FILE).write_text(json.dumps(split, indent=1), encoding="utf-8")
        for command in (["nnUNetv2_preprocess"], ["nnUNetv2_semisup_preprocess", _ACCEPTED[1]]):
            command += ["-d", number, *configuration, "-np", str(processes)]
            _call(layout, budget, command)
        (folder / PREPARED).touch()
    for row in design.rows:
        if row.inserts and not (layout.preprocessed(design, budget) / f"{row.plans}.json").exists():
            copying = ["nnUNetv2_semisup_plans", "-d", number, "-p", STOCK_PLANS, *configuration]
            try:
                _call(layout, budget, [*copying, "--insert", *row.inserts, "-o", row.plans])
            except UserError as error:  # The other rows have their plans.
                print(f"{row.title}, {budget} labels: {error}", file=sys.stderr, flush=True)


def _link_labeled(design: Design, raw: Path, cases: Sequence[str]) -> None:
    """Make ``imagesTr``, ``labelsTr`` and ``dataset.json`` of some labeled cases."""
    source = Path(design.raw)
    content = read_dataset_json(source)
    ending, labels = content["file_ending"], training_labels(source, content)
    _link_images(source, design, cases, raw / "imagesTr", others=False)
    for case in cases:
        label = labels[case]
        side_file = label.with_name(label.name.removesuffix(ending) + ".json")
        _link({f"{case}{ending}": label, f"{case}.json": side_file}, raw / "labelsTr")
    content = {key: value for key, value in content.items() if key not in ("dataset", "semisup")}
    text = json.dumps({**content, "numTraining": len(cases)}, indent=1)
    (raw / "dataset.json").write_text(text, encoding="utf-8")
    partial = source / LABELED_CLASSES_FILE
    if partial.is_file():
        known = read_labeled_classes(partial, content)
        own = {case: list(known[case]) for case in cases if case in known}
        (raw / LABELED_CLASSES_FILE).write_text(json.dumps(own), encoding="utf-8")


def _link_images(
    source: Path, design: Design, cases: Iterable[str], target: Path, others: bool = True
) -> None:
    """Link the images of labeled cases and, with ``others``, those of ``imagesUn``."""
    content = read_dataset_json(source)
    ending, labeled = content["file_ending"], training_images(source, content)
    images = {case: labeled[case] for case in cases}
    if others:
        unlabeled = list_images(source / "imagesUn", ending).cases
        kept = {case: files for case, files in unlabeled.items() if case not in design.left_out}
        images = {case: in_order(files) for case, files in kept.items()} | images
    for case, paths in images.items():
        channels = {f"{case}_{n:04d}{ending}": path for n, path in enumerate(paths)}
        first = paths[0].name.removesuffix(ending)
        # nnU-Net's reader of 3D TIFF takes the spacing from a file named for the case.
        side_file = paths[0].with_name(re.sub(r"_\d{4}$", "", first) + ".json")
        _link({**channels, f"{case}.json": side_file}, target)


def _link(files: Mapping[str, Path], target: Path) -> None:
    """Link files where the file system can, else copy them; those that are not there are none.

    Args:
        files: by their name in ``target``.
        target: folder.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        place = target / name
        if file.is_file() and not place.exists():
            link_or_copy(file, place)


def _cut_features(path: Path, design: Design) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    configuration = content["configurations"].get(design.configuration, {})
    if "architecture" in configuration:
        arguments: dict[str, Any] = configuration["architecture"]["arch_kwargs"]
        stages = arguments["n_stages"]
        if stages > len(design.features):
            raise UserError(
                f"--features {' '.join(map(str, design.features))}: the plan has {stages} "
                "stages; give a number for each."
            )
        arguments["features_per_stage"] = list(design.features[:stages])
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _call(layout: Layout, budget: int, command: list[str]) -> None:
    """Run a command with its output in a file, which the message quotes where it fails."""
    log = layout.budget(budget) / _LOG
    print("$", " ".join(command), file=sys.stderr, flush=True)
    program = [find_command(command[0]), *command[1:]]
    with log.open("a", encoding="utf-8") as file:
        done = subprocess.run(
            program, env=environment(layout, budget), stdout=file, stderr=subprocess.STDOUT
        )
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed ({log}):\n{last_lines(log)}")


def last_lines(log: Path) -> str:
    """Return the last 15 lines of a log, nothing of one that is not there."""
    if not log.is_file():
        return ""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
