"""Run the demo: phantom, plan, preprocessing, training, prediction, evaluation and report.

Each step is a stock command, shown before it runs. Everything lies below one folder, which also
holds nnU-Net's three folders: those of the user are neither read nor written.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.cli._run import run_command
from nnunet_semisup.demo.dataset import Counts, write_phantom
from nnunet_semisup.demo.settings import (
    CONFIGURATION,
    DATASET_ID,
    FOLD,
    VALIDATION_BATCHES,
    Layout,
    Settings,
    claim,
)
from nnunet_semisup.demo.stages import StageFailedError, Stages
from nnunet_semisup.registry import find_method

MOST_FEATURES = 64
BATCH_SIZE = 4


def environment(layout: Layout) -> dict[str, str]:
    """Return the variables of the commands: the demo's folders and few processes."""
    variables = {
        "nnUNet_raw": str(layout.raw.resolve()),
        "nnUNet_preprocessed": str(layout.preprocessed.resolve()),
        "nnUNet_results": str(layout.results.resolve()),
        "nnUNet_def_n_proc": "1",
        "nnUNet_compile": "f",
        "PYTHONUNBUFFERED": "1",
    }
    # nnU-Net's planner fails under nnUNet_n_proc_DA=0, so that only trainings get it.
    dropped = ("nnUNet_semisup_set", "nnUNet_n_proc_DA")
    inherited = {k: v for k, v in os.environ.items() if k not in dropped}
    # Threads that spin while they wait slow each other down on a machine that does other work too.
    return {"OMP_WAIT_POLICY": "PASSIVE", **inherited, **variables}


def training_settings(settings: Settings, trainer: str) -> str:
    """Return the value of ``nnUNet_semisup_set`` for a trainer of the demo."""
    values = {
        "num_epochs": f"{settings.epochs}",
        "num_iterations_per_epoch": f"{settings.steps_per_epoch}",
        "num_val_iterations_per_epoch": f"{VALIDATION_BATCHES}",
        "save_every": "2",
        "seed": f"{settings.seed}",
    }
    if settings.device == "cpu":
        # Networks this small are no faster on both threads of a core.
        values["cpu_threads"] = f"{max(1, (os.cpu_count() or 1) // 2)}"
        values["channels_last"] = "True"
    overrides = [text for name, text in settings.overrides if name == trainer]
    if overrides:
        # Imports torch and nnU-Net, which the demo itself does not need.
        from nnunet_semisup.training.settings import split_assignments

        for text in overrides:
            values.update(split_assignments(text))
    return ",".join(f"{name}={value}" for name, value in values.items())


def shrink_plan(path: Path) -> None:
    """Cut the channels of the plan's network and set its batch: minutes on a CPU.

    nnU-Net plans batches that are small in proportion to the labeled cases, here of two.
    """
    plans = json.loads(path.read_text(encoding="utf-8"))
    configuration = plans["configurations"][CONFIGURATION]
    network = configuration["architecture"]["arch_kwargs"]
    features = [min(channels // 4, MOST_FEATURES) for channels in network["features_per_stage"]]
    print(f"{path.name}: features_per_stage {network['features_per_stage']} -> {features}")
    network["features_per_stage"] = features
    print(f"{path.name}: batch_size {configuration['batch_size']} -> {BATCH_SIZE}")
    configuration["batch_size"] = BATCH_SIZE
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(plans, indent=4), encoding="utf-8")


def prepare(stages: Stages, settings: Settings, layout: Layout) -> None:
    """Make the phantom, plan and preprocess."""

    def phantom() -> None:
        if not layout.raw_dataset.is_dir():
            write_phantom(layout.raw_dataset, settings.counts, settings.seed)
        print(f"{layout.raw_dataset}: {settings.counts}")

    stages.step("phantom", "Phantom data set", phantom)
    stages.command(
        "preprocess",
        "Plan and preprocess, unlabeled images included",
        ["nnUNetv2_semisup_plan_and_preprocess", "-d", str(DATASET_ID)]
        + ["-c", CONFIGURATION, "-npfp", "1", "-np", "1", "--verify_dataset_integrity"],
    )
    stages.step(
        "plan",
        "Cut the network to a size for the CPU",
        lambda: shrink_plan(layout.plans_file),
    )


def train_and_evaluate(stages: Stages, settings: Settings, layout: Layout, trainer: str) -> None:
    """Train one trainer, predict with it and evaluate it."""
    title = find_method(trainer).title
    words = ["nnUNetv2_train", str(DATASET_ID), CONFIGURATION, FOLD, "-tr", trainer]
    words += ["-device", settings.device]
    if any(layout.fold(trainer).glob("checkpoint_*.pth")):
        words.append("--c")
    stages.command(
        f"train_{trainer}",
        f"Train {trainer}: {title}",
        words,
        {
            # A batch is the same whichever process makes it; one more core can.
            "nnUNet_n_proc_DA": "1" if settings.device == "cpu" else "4",
            "nnUNet_semisup_set": training_settings(settings, trainer),
        },
    )
    images, predictions = layout.raw_dataset / "imagesTs", layout.predictions(trainer)
    stages.command(
        f"predict_{trainer}",
        f"Predict the test cases with {trainer}",
        ["nnUNetv2_predict", "-d", str(DATASET_ID), "-i", str(images), "-o", str(predictions)]
        + ["-c", CONFIGURATION, "-f", FOLD, "-tr", trainer]
        + ["-device", settings.device]
        + ["--disable_tta", "-npp", "0", "-nps", "0"],
    )
    stages.command(
        f"evaluate_{trainer}",
        f"Evaluate {trainer}",
        ["nnUNetv2_semisup_evaluate", str(layout.raw_dataset / "labelsTs"), str(predictions)]
        + ["-np", "1"],
    )


def run_demo(output: Path, settings: Settings) -> Path:
    """Run what is not done yet and write the report.

    Args:
        output: folder of everything; a demo in it is continued.
        settings: of the run.

    Returns:
        Path of the report.

    Raises:
        UserError: the settings or the folder are unusable; nothing has been written then.
        StageFailedError: a command failed or was interrupted; running again continues.
    """
    settings.check()
    claim(output, settings)
    layout = Layout(output)
    for folder in (layout.raw, layout.preprocessed, layout.results):
        folder.mkdir(exist_ok=True)
    stages = Stages(layout.stages, environment(layout))
    stages.command("check", "Check the installation", ["nnUNetv2_semisup_info", "--check"])
    prepare(stages, settings, layout)
    for trainer in settings.trainers:
        train_and_evaluate(stages, settings, layout, trainer)
    from nnunet_semisup.demo.html_report import write_html_report

    return write_html_report(settings, layout, stages)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the demo's command line."""
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m nnunet_semisup.demo",
        description="Make a phantom data set, train on it with stock nnU-Net commands, compare the "
        "trainers and write a report. Stopped demos continue when started again.",
    )
    add = parser.add_argument
    add("--output", type=Path, default=Path("demo_output"), help="folder [%(default)s]")
    add(
        "--trainers",
        nargs="+",
        default=list(default.trainers),
        metavar="TRAINER",
        help="trainers to compare [%(default)s]",
    )
    add("--steps", type=int, default=default.steps, help="optimizer steps each [%(default)s]")
    add(
        "--steps-per-epoch",
        type=int,
        default=default.steps_per_epoch,
        metavar="N",
        help="steps of an epoch [%(default)s]",
    )
    add(
        "--cases",
        type=int,
        nargs=3,
        default=[default.counts.labeled, default.counts.unlabeled, default.counts.test],
        metavar=("LABELED", "UNLABELED", "TEST"),
        help="number of cases [%(default)s]",
    )
    add(
        "--set",
        action="append",
        type=assignments,
        default=[],
        metavar="TRAINER:NAME=VALUE,...",
        help="hyper-parameters of one trainer; may be repeated",
    )
    add("--seed", type=int, default=default.seed, help="of phantom and training [%(default)s]")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="[%(default)s]")
    return parser


def assignments(text: str) -> tuple[str, str]:
    """Split ``TRAINER:NAME=VALUE,...`` into a pair; the trainer checks what the values mean."""
    trainer, colon, values = text.partition(":")
    if not (trainer and colon and "=" in values):
        raise argparse.ArgumentTypeError(f"{text}: give TRAINER:NAME=VALUE,...")
    return trainer, values


def choose_device(wanted: str) -> str:
    """Return ``cuda`` where ``wanted`` is ``auto`` and there is such a device."""
    if wanted != "auto":
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _run(args: argparse.Namespace) -> int:
    settings = Settings(
        trainers=tuple(args.trainers),
        steps=args.steps,
        steps_per_epoch=args.steps_per_epoch,
        counts=Counts(*args.cases),
        overrides=tuple(args.set),
        seed=args.seed,
        device=choose_device(args.device),
    )
    try:
        report = run_demo(args.output, settings)
    except StageFailedError as error:
        print(f"stopped: {error}. Run the same command again to continue.")
        return error.code
    print(f"\nReport: {report.resolve()}")
    return 0


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``python -m nnunet_semisup.demo``; ``argv`` defaults to the command line."""
    args = build_parser().parse_args(argv)
    run_command(lambda: _run(args))
