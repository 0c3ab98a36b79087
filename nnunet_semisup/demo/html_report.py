"""Write the demo's report: one HTML file that holds its pictures."""

from __future__ import annotations

import html
import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.demo.figures import draw_comparison, draw_dice, draw_scans, save_small
from nnunet_semisup.demo.phantom import LABELED_REACH, SIZE
from nnunet_semisup.demo.results import METRICS, Result, chosen_cases, read_results, verdict
from nnunet_semisup.demo.settings import CONFIGURATION, VALIDATION_BATCHES, Layout, Settings
from nnunet_semisup.demo.stages import Record, Stages
from nnunet_semisup.evaluation.page import Table, figure, html_table, page, paragraph
from nnunet_semisup.evaluation.tables import format_table

CAVEAT = (
    "The data set is made up so that the labeled scans cover a part of what varies and the "
    "unlabeled ones cover the rest. It shows what unlabeled scans can do where that is so, not how "
    "much they will do on yours."
)
BUDGET = (
    "All trainers made the same number of steps. A step of a semi-supervised trainer computes more "
    "(see the seconds)."
)
PICTURES = {
    "semisup_progress.png": "loss terms and diagnostics of each epoch",
    "semisup_codebook.png": "the codebook at the first, middle and last epoch",
    "semisup_code_maps.png": "image, codes, reconstruction and prediction of unlabeled patches",
}
"""Files that trainers of this package may leave in the folder of the fold."""


def write_html_report(settings: Settings, layout: Layout, stages: Stages) -> Path:
    """Write ``report/index.html`` with its pictures beside it, and print the table.

    Returns:
        Path of the HTML file.
    """
    results = read_results(settings, layout)
    records = _records(settings, stages)
    layout.report.mkdir(exist_ok=True)
    comparison, scans, dice = (
        layout.report / f"{name}.png" for name in ("comparison", "scans", "dice")
    )
    shown = draw_comparison(results, chosen_cases(results), settings, layout)
    save_small(shown, comparison)
    save_small(draw_scans(settings, layout), scans)
    save_small(draw_dice(results), dice)
    header, rows = results_table(results, settings)
    summary = verdict(results, settings)
    print(f"\n{format_table(header, rows)}\n\n{summary}\n{CAVEAT}")
    parts = [
        "<h1>nnunet-semisup: demo</h1>",
        paragraph(summary, "verdict"),
        figure(
            comparison,
            "The test cases in which unlabeled scans help most, in the middle, and least "
            "(difference of Dice to the first prediction).",
        ),
        html_table((header, rows)),
        paragraph(CAVEAT, "note"),
        paragraph(f"{BUDGET} {_notes(results)}"),
        "<h2>Data</h2>",
        paragraph(_data(settings)),
        figure(scans, "All or the first of the labeled and of the unlabeled scans."),
        "<h2>Test cases</h2>",
        figure(dice, "Dice of each test case; dashed: mean."),
        "<h2>Training</h2>",
        *_training(results, layout),
        "<h2>Commands</h2>",
        _commands(records, stages),
        "<h2>Machine</h2>",
        paragraph(_machine(settings, list(records.values()))),
    ]
    path = layout.report / "index.html"
    with atomic_path(path) as temporary:
        temporary.write_text(page("nnunet-semisup: demo", parts), encoding="utf-8")
    return path


def results_table(results: Sequence[Result], settings: Settings) -> Table:
    """Return a line a trainer: means over the test cases, steps and seconds."""
    units = {"HD95": "HD95 (mm)", "ASD": "ASD (mm)"}
    header = ["trainer", *(units.get(metric, metric) for metric in METRICS)]
    header += ["missed", "steps", "s/step"]
    rows: list[list[object]] = [
        [
            result.method.trainer,
            *(result.means[metric] for metric in METRICS),
            result.missed,
            settings.steps,
            "-" if math.isnan(result.seconds_per_step) else f"{result.seconds_per_step:.2f}",
        ]
        for result in results
    ]
    return header, rows


def _data(settings: Settings) -> str:
    counts = settings.counts
    changed = "".join(f" {trainer}: {values}." for trainer, values in settings.overrides)
    return (
        f"Made-up slices of {SIZE} x {SIZE} pixels with an organ: {counts.labeled} with labels, "
        f"{counts.unlabeled} without, {counts.test} for testing, seed {settings.seed}. They vary "
        "in phase (how the organ stands out from what surrounds it), noise, bias field, form and "
        f"blur. The labeled ones lie in the first {100 * LABELED_REACH:.0f} % of each scale, the "
        "unlabeled and the test cases anywhere. Unlabeled cases are used by the trainers other "
        f"than nnUNetTrainerSupervised. {CONFIGURATION}, final weights, no test-time augmentation."
        f"{changed}"
    )


def _notes(results: Sequence[Result]) -> str:
    count = len(results[0].dice)
    return (
        f"Means over {count} cases. Missed: cases in which nothing was predicted; they count as "
        "Dice 0 and as a distance of the image's diagonal. Seconds a step: median epoch over its "
        f"steps; {VALIDATION_BATCHES} validation batches are part of an epoch."
    )


def _machine(settings: Settings, records: Sequence[Record]) -> str:
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("nnunet-semisup", "nnunetv2", "torch")
    )
    return (
        f"{packages}, Python {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} processors, device {settings.device}. Peak memory "
        f"of the largest process: {max(record.largest_mib for record in records):.0f} MiB."
    )


def _training(results: Sequence[Result], layout: Layout) -> list[str]:
    parts = ['<div class="columns">']
    for result in results:
        path = layout.fold(result.method.trainer) / "progress.png"
        if path.is_file():
            parts.append(figure(path, f"{result.method.trainer}: nnU-Net's progress.png"))
    parts.append("</div>")
    for result in results:
        for name, caption in PICTURES.items():
            path = layout.fold(result.method.trainer) / name
            if path.is_file():
                parts.append(figure(path, f"{result.method.trainer}: {caption} ({name})"))
    return parts


def _records(settings: Settings, stages: Stages) -> dict[str, Record]:
    names = ["check", "phantom", "preprocess", "plan"]
    for trainer in settings.trainers:
        names += [f"{stage}_{trainer}" for stage in ("train", "predict", "evaluate")]
    found = {name: stages.record(name) for name in names}
    return {name: record for name, record in found.items() if record is not None}


def _commands(records: Mapping[str, Record], stages: Stages) -> str:
    folders = [
        f'export {name}="{stages.environment[name]}"'
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    ]
    lines = [f"# {n}: {r.seconds:.0f} s\n{r.command}".rstrip() for n, r in records.items()]
    total = sum(record.seconds for record in records.values())
    text = html.escape("\n".join([*folders, "", *lines]))
    return f"<p>{total:.0f} s in all.</p><pre>{text}</pre>"
