"""Compare trainers on one data set (``nnUNetv2_semisup_benchmark``)."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_semisup.cli._run import run_command
from nnunet_semisup.errors import UserError

if TYPE_CHECKING:
    from nnunet_semisup.benchmark.design import Layout
    from nnunet_semisup.benchmark.execute import Place

DEFAULT_TRAINERS = ("nnUNetTrainerPseudoLabel",)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command and its three parts."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_semisup_benchmark",
        description="Compare trainers at equal steps on one data set: plan says what will be run, "
        "run makes what is not done, report writes a page of what is there.",
    )
    parts = parser.add_subparsers(dest="part", required=True)
    plan = parts.add_parser("plan", help="choose what is compared; adds to what was planned before")
    _add_design(plan)
    _add_plans(plan)
    run = parts.add_parser("run", help="make the runs that are not done")
    _add_places(run)
    report = parts.add_parser("report", help="write report/index.html from what is there")
    report.add_argument("--published", metavar="NAME", help="set a data set's published numbers by")
    for part in (plan, run, report):
        part.add_argument("folder", type=Path, metavar="FOLDER", help="of the benchmark")
    return parser


def _least(least: int) -> Callable[[str], int]:
    """Return a reader of whole numbers that are not smaller."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
        return int(text)

    return read


def _above(bound: float) -> Callable[[str], float]:
    """Return a reader of finite numbers that are greater."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not bound < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is no number above {bound:g}")
        return value

    return read


def _add_design(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", required=True, metavar="DATASET", help="id or name in nnUNet_raw")
    add("-c", default="3d_fullres", metavar="CONFIGURATION", help="default: %(default)s")
    add(
        "--trainers",
        nargs="+",
        default=list(DEFAULT_TRAINERS),
        metavar="TRAINER[:NAME=VALUE,...][+INSERT]",
        help="rows beside the labeled cases alone, 'all' for every trainer of this package; "
        "default: %(default)s",
    )
    add("--budgets", nargs="+", type=int, metavar="N", help="labeled cases, default: all of train")
    add("--seeds", nargs="+", type=_least(0), default=[0], metavar="N", help="default: %(default)s")
    add(
        "--steps",
        type=_least(1),
        default=250_000,
        metavar="N",
        help="of every row, default: nnU-Net's %(default)s",
    )
    add("--steps-per-epoch", type=_least(1), default=250, metavar="N", help="default: %(default)s")
    add(
        "--equal-operations",
        nargs="*",
        type=_above(1),
        metavar="FACTOR",
        help="the labeled cases alone with as many times the steps, too; without a number: the "
        "median cost of the other rows",
    )
    add("--fold", type=int, default=0, help="of splits_final.json, default: %(default)s")
    add(
        "--subsets",
        type=int,
        metavar="SEED",
        help="draw the order in which budgets take cases; default: the order of the file",
    )
    add("--leave-out", nargs="+", default=[], metavar="CASE", help="cases that get no role")


def _add_plans(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-pl", default="ExperimentPlanner", metavar="PLANNER", help="default: %(default)s")
    add("-gpu_memory_target", type=_above(0), default=0.0, metavar="GB", help="of the planner")
    add(
        "--spacing",
        nargs=3,
        type=_above(0),
        default=[],
        metavar="MM",
        help="in place of the plan's, in the order of its axes (z y x)",
    )
    add(
        "--features",
        nargs="+",
        type=_least(1),
        default=[],
        metavar="N",
        help="a stage, in place of the plan's, for small networks on a CPU",
    )
    add("--bfloat16", action="store_true", help="mixed precision on the CPU")
    add("-device", default="cuda", choices=("cpu", "cuda", "mps"), help="for the estimate")
    add("--threads", type=_least(1), metavar="N", help="of a CPU lane, for the estimate")
    add("-np", type=_least(1), default=4, metavar="N", help="processes, default: %(default)s")
    add("--json", action="store_true", help="print the runs as JSON")


def _add_places(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-device", default="cuda", choices=("cpu", "cuda", "mps"), help="default: %(default)s")
    add("--gpus", nargs="+", type=_least(0), metavar="N", help="one lane on each of these GPUs")
    add(
        "--lanes", type=_least(1), default=1, metavar="N", help="trainings at a time without --gpus"
    )
    add("--threads", type=_least(1), metavar="N", help="of each training on the CPU")
    add("--workers", type=_least(0), metavar="N", help="processes of each training for patches")
    add("--retry", action="store_true", help="make failed runs again, too")
    add("-np", type=_least(1), default=4, metavar="N", help="processes that prepare data")
    add("--cluster", choices=("slurm", "local"), help="submit a job for each run (submitit)")
    add(
        "--job",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="parameters of submitit, such as timeout_min=2880 slurm_partition=gpu gpus_per_node=1",
    )


def _plan(args: argparse.Namespace) -> None:
    from nnunet_semisup.benchmark.design import join_design, read_design, write_design
    from nnunet_semisup.benchmark.estimate import estimate
    from nnunet_semisup.benchmark.execute import Place, check_places
    from nnunet_semisup.benchmark.leaks import check_leaks
    from nnunet_semisup.benchmark.planning import describe, design_of, longer_rows, rows_of_all
    from nnunet_semisup.benchmark.prepare import forget, plan
    from nnunet_semisup.benchmark.row_checks import check_row_settings, rows_that_train
    from nnunet_semisup.cli._planning import PLANNER, find_class, refuse_unknown_configurations
    from nnunet_semisup.preparation.lock import exclusive_lock
    from nnunet_semisup.preparation.plans import refuse_cascade
    from nnunet_semisup.preparation.raw import find_dataset

    place = Place(args.device, threads=args.threads)
    check_places([place])
    _warn_of_slow_bfloat16(args.bfloat16, place)
    folders = find_dataset(int(args.d) if args.d.isdigit() else args.d)
    layout, design = _layout(args.folder), design_of(args, folders)
    refuse_cascade([args.c])
    refuse_unknown_configurations([args.c], find_class(PLANNER, args.pl), None, [])
    check_row_settings(design)
    with exclusive_lock(layout.folder):
        joined = join_design(layout, design)
        if not layout.design.exists():
            check_leaks(layout, design, folders, args.np, args.leave_out)
            forget(layout)
        plan(layout, joined, joined.budgets[0], args.np)
        # The file comes last: arguments that turn out to be wrong are not kept.
        optional = rows_of_all(args.trainers, design.rows)
        budgets = replace(design, budgets=joined.budgets)
        rows, left_out = rows_that_train(layout, budgets, optional)
        if args.equal_operations is not None:
            rows += longer_rows(rows, args.equal_operations)
        write_design(layout, replace(design, rows=tuple(rows)))
        design = read_design(layout)
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)
    found = estimate(layout, design, place)
    content = describe(layout, design, found, place)
    print(json.dumps(content, indent=1) if args.json else content["text"])


def _run(args: argparse.Namespace) -> int:
    from nnunet_semisup.benchmark.cluster import executor_of, submit
    from nnunet_semisup.benchmark.design import read_design
    from nnunet_semisup.benchmark.execute import Place, check_places
    from nnunet_semisup.benchmark.lanes import run_lanes, to_do
    from nnunet_semisup.benchmark.prepare import prepare
    from nnunet_semisup.benchmark.report import write_report
    from nnunet_semisup.preparation.lock import exclusive_lock

    if os.name != "posix":
        raise UserError("run needs Linux or macOS: it locks the folder of each training.")
    layout = _layout(args.folder)
    design = read_design(layout)
    gpus = args.gpus if args.gpus is not None else [None] * args.lanes
    places = [Place(args.device, gpu, args.threads, args.workers) for gpu in gpus]
    if args.cluster:
        executor = executor_of(layout, args.cluster, _parameters(args.job))
    else:
        check_places(places)
        _warn_of_slow_bfloat16(design.bfloat16, places[0])
    with exclusive_lock(layout.folder):
        runs = to_do(layout, design.runs(), args.retry)
        faults = {}
        for budget in dict.fromkeys(run.budget for run in runs):
            try:
                prepare(layout, design, budget, args.np)
            except UserError as error:
                faults[budget] = str(error)
                print(f"{budget} labels: not prepared, its runs are skipped. {error}", flush=True)
        runs = [run for run in runs if run.budget not in faults]
        after_each = lambda: print(f"page: {write_report(layout.folder)}", flush=True)  # noqa: E731
        if args.cluster:
            submit(layout, runs, places[0], executor, after_each)
            whole = True
        else:
            whole = run_lanes(layout, design, runs, places, after_each)
        print(f"page: {write_report(layout.folder)}")
    left = to_do(layout, design.runs(), retry=True)
    return 0 if whole and not left else 1


def _warn_of_slow_bfloat16(bfloat16: bool, place: Place) -> None:
    from nnunet_semisup.networks.bfloat16 import slow_bfloat16_note

    if bfloat16 and place.device == "cpu" and (note := slow_bfloat16_note()):
        print(note, file=sys.stderr)


def _layout(folder: Path) -> Layout:
    """Return where the files are; a folder that is there, and one and the same by any name."""
    from nnunet_semisup.benchmark.design import Layout

    try:
        folder = folder.resolve()
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be used: {error}.") from error
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder for the benchmark.")
    return Layout(folder)


def _parameters(given: Sequence[str]) -> dict[str, Any]:
    pairs = [text.partition("=") for text in given]
    if wrong := [text for text, (name, _, value) in zip(given, pairs, strict=True) if not value]:
        raise UserError(f"--job {' '.join(wrong)}: write NAME=VALUE.")
    return {name: int(value) if value.isdigit() else value for name, _, value in pairs}


def _report(args: argparse.Namespace) -> None:
    from nnunet_semisup.benchmark.report import write_report

    print(f"written: {write_report(_layout(args.folder).folder, args.published)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the console script; ``argv`` defaults to the command line."""
    args = build_parser().parse_args(argv)
    part = {"plan": _plan, "run": _run, "report": _report}[args.part]
    run_command(lambda: part(args))


if __name__ == "__main__":
    main()
