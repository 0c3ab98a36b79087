"""Compare trainers on one data set (``nnUNetv2_semisup_benchmark``)."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_semisup.cli._run import run_command
from nnunet_semisup.errors import UserError

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
    run = parts.add_parser("run", help="make the runs that are not done")
    _add_places(run)
    report = parts.add_parser("report", help="write report/index.html from what is there")
    report.add_argument("--published", metavar="NAME", help="set a data set's published numbers by")
    for part in (plan, run, report):
        part.add_argument("folder", type=Path, metavar="FOLDER", help="of the benchmark")
    return parser


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
    add("--seeds", nargs="+", type=int, default=[0], metavar="N", help="default: %(default)s")
    add("--steps", type=int, default=250_000, help="of every row, default: nnU-Net's %(default)s")
    add("--steps-per-epoch", type=int, default=250, metavar="N", help="default: %(default)s")
    add(
        "--equal-operations",
        nargs="*",
        type=float,
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
    add("-pl", default="ExperimentPlanner", metavar="PLANNER", help="default: %(default)s")
    add("-gpu_memory_target", type=float, default=0.0, metavar="GB", help="of the planner")
    add("--spacing", nargs="+", type=float, default=[], metavar="MM", help="in place of the plan's")
    add(
        "--features",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help="a stage, in place of the plan's, for small networks on a CPU",
    )
    add("--bfloat16", action="store_true", help="mixed precision on the CPU")
    add("-device", default="cuda", choices=("cpu", "cuda", "mps"), help="for the estimate")
    add("--threads", type=int, metavar="N", help="of a CPU lane, for the estimate")
    add("-np", type=int, default=4, metavar="N", help="processes, default: %(default)s")
    add("--json", action="store_true", help="print the runs as JSON")


def _add_places(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-device", default="cuda", choices=("cpu", "cuda", "mps"), help="default: %(default)s")
    add("--gpus", nargs="+", type=int, metavar="N", help="one lane on each of these GPUs")
    add("--lanes", type=int, default=1, metavar="N", help="trainings at a time without --gpus")
    add("--threads", type=int, metavar="N", help="of each training on the CPU")
    add("--workers", type=int, metavar="N", help="processes of each training that make patches")
    add("--retry", action="store_true", help="make failed runs again, too")
    add("-np", type=int, default=4, metavar="N", help="processes that prepare data")
    add("--cluster", choices=("slurm", "local"), help="submit a job for each run (submitit)")
    add(
        "--job",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="parameters of submitit, such as timeout_min=2880 slurm_partition=gpu gpus_per_node=1",
    )


def _plan(args: argparse.Namespace) -> None:
    from nnunet_semisup.benchmark.design import Layout, read_design, write_design
    from nnunet_semisup.benchmark.estimate import estimate
    from nnunet_semisup.benchmark.execute import Place
    from nnunet_semisup.benchmark.leaks import check_leaks
    from nnunet_semisup.benchmark.planning import describe, design_of
    from nnunet_semisup.benchmark.prepare import plan
    from nnunet_semisup.preparation.lock import exclusive_lock
    from nnunet_semisup.preparation.raw import find_dataset

    folders = find_dataset(int(args.d) if args.d.isdigit() else args.d)
    layout, design = Layout(args.folder), design_of(args, folders)
    with exclusive_lock(layout.folder):
        new = not layout.design.exists()
        if new:
            check_leaks(layout, design, folders, args.np, args.leave_out)
        write_design(layout, design)
        design = read_design(layout)
        plan(layout, design, design.budgets[0], args.np)
    found = estimate(layout, design, Place(args.device, threads=args.threads))
    content = describe(layout, design, found)
    print(json.dumps(content, indent=1) if args.json else content["text"])


def _run(args: argparse.Namespace) -> int:
    from nnunet_semisup.benchmark.cluster import submit
    from nnunet_semisup.benchmark.design import Layout, read_design
    from nnunet_semisup.benchmark.execute import Place
    from nnunet_semisup.benchmark.lanes import run_lanes, to_do
    from nnunet_semisup.benchmark.prepare import prepare
    from nnunet_semisup.benchmark.report import write_report
    from nnunet_semisup.preparation.lock import exclusive_lock

    if os.name != "posix":
        raise UserError("run needs Linux or macOS: it locks the folder of each training.")
    layout = Layout(args.folder)
    design = read_design(layout)
    gpus = args.gpus if args.gpus is not None else [None] * args.lanes
    places = [Place(args.device, gpu, args.threads, args.workers) for gpu in gpus]
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
            submit(layout, runs, places[0], args.cluster, _parameters(args.job), after_each)
            whole = True
        else:
            whole = run_lanes(layout, design, runs, places, after_each)
        print(f"page: {write_report(layout.folder)}")
    left = to_do(layout, design.runs(), retry=True)
    return 0 if whole and not left else 1


def _parameters(given: Sequence[str]) -> dict[str, Any]:
    pairs = [text.partition("=") for text in given]
    if wrong := [text for text, (name, _, value) in zip(given, pairs, strict=True) if not value]:
        raise UserError(f"--job {' '.join(wrong)}: write NAME=VALUE.")
    return {name: int(value) if value.isdigit() else value for name, _, value in pairs}


def _report(args: argparse.Namespace) -> None:
    from nnunet_semisup.benchmark.report import write_report

    print(f"written: {write_report(args.folder, args.published)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the console script; ``argv`` defaults to the command line."""
    args = build_parser().parse_args(argv)
    part = {"plan": _plan, "run": _run, "report": _report}[args.part]
    run_command(lambda: part(args))


if __name__ == "__main__":
    main()
