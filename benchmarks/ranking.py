"""Which scans to annotate next: those a ranking names against random ones, annotated and trained.

    nnUNetv2_semisup_benchmark plan LA_RANK -d 516 --trainers Supervised --budgets 4 16 ...
    nnUNetv2_semisup_benchmark run LA_RANK -device cpu --threads 1
    python benchmarks/ranking.py LA_RANK --add 4 --draws 5

The benchmark has two budgets: the second adds the masks that an annotator would make. The model of
the first budget ranks the cases that have no label in it; of the order, those count that have one
in the second. Prints, for each order, the Dice of labels alone after training on the first budget
and the cases that the order names. Trainings that are done are kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
from pathlib import Path
from statistics import fmean

from nnunet_semisup.benchmark.design import SUPERVISED, Design, Layout, Row, Run, read_design
from nnunet_semisup.benchmark.execute import Place, command_of, settings_of
from nnunet_semisup.benchmark.prepare import environment
from nnunet_semisup.demo.stages import find_command
from nnunet_semisup.evaluation.evaluate import evaluate_folders
from nnunet_semisup.evaluation.tables import format_table
from nnunet_semisup.preparation.layout import SPLITS_FILE

ORDERS = ("stratified", "entropy", "disagreement")
PLACE = Place("cpu", threads=1, workers=1)


def call(words: list[str], env: dict[str, str], log: Path) -> None:
    """Run a command; what it says goes to a file."""
    with log.open("a", encoding="utf-8") as file:
        program = [find_command(words[0]), *words[1:]]
        subprocess.run(program, env=env, stdout=file, stderr=subprocess.STDOUT, check=True)


def named_by(layout: Layout, design: Design, order: str, seed: int, count: int) -> list[str]:
    """Return the first cases of an order, by the first budget's model of labels alone."""
    run = Run(Row(SUPERVISED), design.budgets[0], design.seeds[0])
    env = environment(layout, run.budget, layout.run(run) / "results")
    output = layout.folder / "ranking"
    output.mkdir(exist_ok=True)
    words = ["nnUNetv2_semisup_rank", "-d", str(design.dataset_id), "-c", design.configuration]
    words += ["-tr", SUPERVISED, "-f", "0", "-o", str(output / "ranked"), "-device", PLACE.device]
    words += ["-npp", "1", "-nps", "1", "--by", order, "--seed", str(seed)]
    call(words, env | {"OMP_NUM_THREADS": "1"}, output / "log.txt")
    with (output / "ranked" / "ranking.csv").open(encoding="utf-8", newline="") as file:
        order = [line["case"] for line in csv.DictReader(file)]
    with_mask = design.labeled(design.budgets[-1])
    return [case for case in order if case in with_mask][:count]


def dice_of(layout: Layout, design: Design, cases: list[str], settings: str) -> list[float]:
    """Train labels alone on the first budget and ``cases``; return the evaluation cases' Dice."""
    budget = design.budgets[-1]
    source = layout.preprocessed(design, budget)
    labeled = [*design.labeled(design.budgets[0]), *sorted(cases)]
    folder = layout.folder / "ranking" / "-".join(["with", *sorted(cases)])
    own = folder / "preprocessed" / design.dataset
    if not own.exists():
        own.mkdir(parents=True)
        for file in source.iterdir():
            if file.name != SPLITS_FILE:
                (own / file.name).symlink_to(file.absolute())
    split = [{"train": labeled, "val": list(design.evaluation)}]
    (own / SPLITS_FILE).write_text(json.dumps(split), encoding="utf-8")
    run = Run(Row(SUPERVISED), budget, design.seeds[0])
    words = command_of(design, run, PLACE)
    fold = folder / "results" / design.dataset
    fold = fold / f"{SUPERVISED}__{run.row.plans}__{design.configuration}" / "fold_0"
    if not (fold / "validation" / "summary.json").exists():
        env = environment(layout, budget, folder / "results")
        env["nnUNet_preprocessed"] = str((folder / "preprocessed").absolute())
        env["nnUNet_semisup_set"] = ",".join(
            filter(None, [settings_of(design, run, PLACE), settings])
        )
        env |= {"nnUNet_n_proc_DA": "1", "OMP_NUM_THREADS": "1"}
        call(words + ["--c"] * (fold / "checkpoint_latest.pth").exists(), env, folder / "log.txt")
    found = evaluate_folders(
        source / "gt_segmentations",
        fold / "validation",
        dataset_json=source / "dataset.json",
        allow_missing=True,
    )
    (name,) = (name for name in found.cases[0].classes)
    return [case.classes[name].values["Dice"] for case in found.cases]


def main() -> None:
    """Rank, train and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="of the finished benchmark")
    parser.add_argument("--add", type=int, default=4, help="cases that get annotated")
    parser.add_argument("--draws", type=int, default=5, help="random choices to compare with")
    parser.add_argument(
        "--settings", default="", help="further ones, as nnUNet_semisup_set has them"
    )
    options = parser.parse_args()
    layout = Layout(options.folder)
    design = read_design(layout)
    choices = {order: (order, 0) for order in ORDERS}
    choices |= {f"random, draw {n + 1}": ("random", n) for n in range(options.draws)}
    rows: list[tuple[object, ...]] = []
    for title, (order, seed) in {"none": ("", 0), **choices}.items():
        cases = named_by(layout, design, order, seed, options.add) if order else []
        dice = dice_of(layout, design, cases, options.settings)
        rows.append((title, fmean(dice), min(dice), ", ".join(case[:6] for case in cases)))
        print(title, f"{fmean(dice):.4f}", flush=True)
    random = [row[1] for row in rows if str(row[0]).startswith("random")]
    print(format_table(("annotated next", "Dice", "worst", "cases"), rows, markdown=True))
    print(f"Random choices: mean {fmean(random):.4f}, {min(random):.4f} to {max(random):.4f}")


if __name__ == "__main__":
    main()
