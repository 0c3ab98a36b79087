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
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from nnunet_semisup.benchmark.design import SUPERVISED, Design, Layout, Row, Run, read_design
from nnunet_semisup.benchmark.execute import Place, run_one
from nnunet_semisup.benchmark.prepare import environment
from nnunet_semisup.demo.stages import find_command
from nnunet_semisup.evaluation.tables import format_table
from nnunet_semisup.preparation.layout import SPLITS_FILE
from nnunet_semisup.training.interruption import Interruption

ORDERS = ("stratified", "entropy", "disagreement")
PLACE = Place("cpu", threads=1, workers=1)


def ranked(layout: Layout, design: Design, seed: int) -> list[dict[str, str]]:
    """Return the table of ``nnUNetv2_semisup_rank`` by the first budget's model of labels alone.

    Args:
        layout: of the benchmark.
        design: of it.
        seed: of the random orders.
    """
    run = Run(Row(SUPERVISED), design.budgets[0], design.seeds[0])
    output = layout.folder / "ranking" / "ranked"
    output.parent.mkdir(exist_ok=True)
    command = [find_command("nnUNetv2_semisup_rank"), "-d", str(design.dataset_id)]
    command += ["-c", design.configuration, "-tr", SUPERVISED, "-f", "0", "-o", str(output)]
    command += ["-device", PLACE.device, "-npp", "1", "-nps", "1", "--seed", str(seed)]
    env = environment(layout, run.budget, layout.run(run) / "results") | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)
    with (output / "ranking.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def first_with_mask(
    table: Sequence[Mapping[str, str]], order: str, design: Design, count: int
) -> list[str]:
    """Return the first cases of an order that have a label in the second budget."""
    with_mask = design.labeled(design.budgets[-1])
    lines = sorted(table, key=lambda line: int(line[f"place_{order}"]))
    return [line["case"] for line in lines if line["case"] in with_mask][:count]


def dice_of(layout: Layout, design: Design, cases: Sequence[str], settings: str) -> list[float]:
    """Train labels alone on the first budget and ``cases``; return the evaluation cases' Dice."""
    labeled = (*design.labeled(design.budgets[0]), *sorted(cases))
    own = replace(design, pool=labeled, budgets=(len(labeled),))
    source, folder = layout.budget(design.budgets[-1]), "-".join(["with", *sorted(cases)])
    place = Layout(layout.folder / "ranking" / folder)
    run = Run(Row(SUPERVISED, settings), len(labeled), design.seeds[0])
    target = place.preprocessed(own, run.budget)
    if not target.exists():
        target.mkdir(parents=True)
        (place.budget(run.budget) / "raw").symlink_to((source / "raw").absolute())
        for file in layout.preprocessed(design, design.budgets[-1]).iterdir():
            if file.name != SPLITS_FILE:
                (target / file.name).symlink_to(file.absolute())
    split = [{"train": list(labeled), "val": list(design.evaluation)}]
    (target / SPLITS_FILE).write_text(json.dumps(split), encoding="utf-8")
    with Interruption() as stop:
        record = run_one(place, own, run, PLACE, stop)
    if record.status != "finished":
        raise SystemExit(f"{place.run(run)}: {record.status} {record.fault}")
    found = json.loads(place.evaluation(run).read_text(encoding="utf-8"))
    return [case["mean_dice"] for case in found["cases"].values()]


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
    tables = [ranked(layout, design, seed) for seed in range(options.draws)]
    orders = {order: (tables[0], order) for order in ORDERS}
    orders |= {f"random, draw {n}": (table, "random") for n, table in enumerate(tables, 1)}
    chosen = {t: first_with_mask(*order, design, options.add) for t, order in orders.items()}
    rows: list[tuple[object, ...]] = []
    for title, cases in {"none": [], **chosen}.items():
        dice = dice_of(layout, design, cases, options.settings)
        rows.append((title, fmean(dice), min(dice), ", ".join(case[:6] for case in cases)))
        print(title, f"{fmean(dice):.4f}", flush=True)
    random = [float(str(row[1])) for row in rows if str(row[0]).startswith("random")]
    print(format_table(("annotated next", "Dice", "worst", "cases"), rows, markdown=True))
    print(f"Random choices: mean {fmean(random):.4f}, {min(random):.4f} to {max(random):.4f}")


if __name__ == "__main__":
    main()
