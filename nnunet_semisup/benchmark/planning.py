"""From the command line's arguments to a design, and a design in words."""

from __future__ import annotations

import shlex
import statistics
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from nnunet_semisup.benchmark.cases import check_budgets, choose_cases
from nnunet_semisup.benchmark.design import SUPERVISED, Design, Layout, Row, read_row
from nnunet_semisup.benchmark.estimate import Estimate
from nnunet_semisup.benchmark.execute import Place
from nnunet_semisup.benchmark.record import read_record
from nnunet_semisup.benchmark.statistics import too_few
from nnunet_semisup.dataset_conversion.findings import counted
from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.tables import format_table
from nnunet_semisup.preparation.inserted_plans import read_choice
from nnunet_semisup.preparation.raw import DatasetFolders, list_images, read_dataset_json
from nnunet_semisup.registry import METHODS, find_method


def design_of(args: Namespace, folders: DatasetFolders) -> Design:
    """Return the design that arguments of ``plan`` mean.

    Args:
        args: of the command line.
        folders: of the data set.

    Raises:
        UserError: arguments that do not go together, or cases that cannot be had.
    """
    if args.steps < args.steps_per_epoch or args.steps % args.steps_per_epoch:
        raise UserError(
            f"--steps {args.steps} is no multiple of --steps-per-epoch {args.steps_per_epoch}; "
            f"give --steps-per-epoch {min(args.steps, args.steps_per_epoch)}, too, or other steps."
        )
    cases = choose_cases(folders, args.fold, args.subsets, args.leave_out)
    budgets = args.budgets or [len(cases.pool)]
    check_budgets(budgets, cases, _others(folders, args.leave_out) + len(cases.unlabeled))
    return Design(
        dataset=folders.name,
        raw=str(folders.raw.absolute()),
        configuration=args.c,
        rows=rows_of(args.trainers, args.c),
        budgets=tuple(dict.fromkeys(budgets)),
        seeds=tuple(dict.fromkeys(args.seeds)),
        steps=args.steps,
        steps_per_epoch=args.steps_per_epoch,
        pool=cases.pool,
        unlabeled=cases.unlabeled,
        evaluation=cases.evaluation,
        left_out=tuple(args.leave_out),
        order=cases.order,
        spacing=tuple(args.spacing),
        features=tuple(args.features),
        planner=args.pl,
        gpu_memory=args.gpu_memory_target,
        bfloat16=args.bfloat16,
    )


def rows_of(trainers: Sequence[str], configuration: str) -> tuple[Row, ...]:
    """Return the rows, labels alone first.

    Args:
        trainers: as the command line has them; ``all`` stands for every one of the dimensions.
        configuration: whose name says how many they are.

    Raises:
        UserError: unknown trainers or inserts.
    """
    dims = 2 if configuration.startswith("2d") else 3
    every = [method.trainer for method in METHODS if dims in method.dims]
    named = [text for given in trainers for text in (every if given == "all" else [given])]
    rows = [Row(SUPERVISED), *map(read_row, named)]
    for row in rows:
        for insert in row.inserts:
            read_choice(insert)
    return tuple(dict.fromkeys(rows))


def rows_of_all(trainers: Sequence[str], rows: Sequence[Row]) -> list[Row]:
    """Return the rows that only ``all`` names, which need not be trained."""
    named = [Row(SUPERVISED), *(read_row(given) for given in trainers if given != "all")]
    return [row for row in rows if row not in named]


def longer_rows(rows: Sequence[Row], factors: Sequence[float]) -> list[Row]:
    """Return labels alone with as many times the steps.

    Args:
        rows: the others.
        factors: times; none: the median cost of the others, if that is more than labels alone.
    """
    if not factors:
        costs = [float(find_method(row.trainer).cost) for row in rows if not row.is_baseline]
        factors = [statistics.median(costs)] if costs else []
    return [Row(SUPERVISED, steps_factor=factor) for factor in factors if factor > 1]


def describe(layout: Layout, design: Design, found: Estimate, place: Place) -> dict[str, Any]:
    """Return runs, time and disk, as values and as text.

    Args:
        layout: of the benchmark.
        design: what is compared.
        found: its estimate.
        place: what it is of, for the command that runs.
    """
    runs: list[dict[str, Any]] = [
        {
            "run": run.title,
            "steps": design.steps_of(run.row),
            "hours": round(found.seconds(design, run) / 3600, 2),
            "GiB": round(found.gib(run), 3),
            "status": read_record(layout, run).status,
        }
        for run in design.runs()
    ]
    left = [run for run in runs if run["status"] != "finished"]
    hours = sum(run["hours"] for run in left)
    gib = sum(run["GiB"] for run in runs) + sum(found.gib_per_budget.values())
    basis = "as finished runs took" if found.measured else "by operations alone, without waiting"
    table = format_table(list(runs[0]), [list(run.values()) for run in runs])
    doubt = too_few(len(design.evaluation))
    text = (
        f"{table}\n{len(left)} of {len(runs)} runs are left: {hours:.1f} hours in one lane "
        f"({basis}), {gib:.1f} GiB of disk in all.\n"
        f"Labeled cases: {design.order}. Evaluation: {counted(len(design.evaluation), 'case')}."
        f"{f' {doubt}' if doubt else ''}\n"
        f"run:    {_run_command(layout, place)}"
    )
    return {
        "runs": runs,
        "hours_left": round(hours, 2),
        "measured": found.measured,
        "GiB": round(gib, 2),
        "labeled": {str(budget): list(design.labeled(budget)) for budget in design.budgets},
        "evaluation": list(design.evaluation),
        "text": text,
    }


def _run_command(layout: Layout, place: Place) -> str:
    command = ["nnUNetv2_semisup_benchmark", "run", str(layout.folder)]
    if place.device != Place.device:
        command += ["-device", place.device]
    if place.threads is not None:
        command += ["--threads", str(place.threads)]
    return shlex.join(command)


def _others(folders: DatasetFolders, left_out: list[str]) -> int:
    folder = folders.raw / "imagesUn"
    if not folder.is_dir():
        return 0
    images = list_images(folder, read_dataset_json(folders.raw)["file_ending"])
    return len([case for case in images.cases if case not in left_out])
