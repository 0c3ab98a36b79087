"""Cases that lack a class, on a made-up data set: with labeled_classes.json and without.

    python benchmarks/partial_labels.py --work DIR --steps 500

Three organs in 2D. In half of the training cases nobody annotated the third one. Prints each
organ's mean Dice over complete validation cases, for nnU-Net on complete labels, on the incomplete
ones taken as they are, and with the file; the same with a teacher.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path
from statistics import fmean

import numpy as np
import SimpleITK

from nnunet_semisup.demo.stages import find_command
from nnunet_semisup.evaluation.evaluate import evaluate_folders
from nnunet_semisup.evaluation.tables import format_table

SIZE, TRAINING, VALIDATION, UNLABELED = 64, 12, 12, 24
NAME, LACKING = "Dataset960_Organs", "third"
LABELS = {"background": 0, "first": 1, "second": 2, "third": 3}
ROWS = (
    ("complete labels", "nnUNetTrainerSupervised", "complete"),
    ("lacking class as background", "nnUNetTrainerSupervised", "taken"),
    ("labeled_classes.json", "nnUNetTrainerSupervised", "declared"),
    ("lacking class as background", "nnUNetTrainerPseudoLabel", "taken"),
    ("labeled_classes.json", "nnUNetTrainerPseudoLabel", "declared"),
)


def make_case(seed: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return an image and its label, ``(SIZE, SIZE)``: three organs that vary, noise, a bias."""
    draw = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(SIZE)] * 2, indexing="ij"), -1).astype(float)
    label = np.zeros((SIZE, SIZE), np.uint8)
    centres = ((20, 20), (20, 44), (44, 32))
    for value, centre in enumerate(centres, 1):
        at, radii = np.array(centre) + draw.normal(0, 4, 2), draw.uniform(5, 11, 2)
        distance = (np.abs((grid - at) / radii) ** (2 if value < 3 else 4)).sum(-1)
        label[distance <= 1] = value
    bright = np.array([0.3, 0.8, 0.6, 0.7]) + draw.normal(0, 0.06, 4)
    bias = 1 + 0.2 * np.sin(grid @ draw.normal(0, 0.05, 2))
    return bright[label] * bias + draw.normal(0, 0.18, label.shape), label


def write_case(folder: Path, name: str, subset: str, number: int, lacks: bool, hide: bool) -> None:
    """Write a case; ``hide`` its label; ``lacks`` its third organ's."""
    image, label = make_case([960, {"tr": 0, "va": 1, "un": 2}[subset], number])
    label[label == LABELS[LACKING]] *= not lacks
    images, labels = ("imagesUn", None) if hide else ("imagesTr", "labelsTr")
    for place, suffix, array in ((images, "_0000", np.float32(image)), (labels, "", label)):
        if place is not None:
            (folder / place).mkdir(parents=True, exist_ok=True)
            target = folder / place / f"{name}{suffix}.nii.gz"
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(target), True)


def make_dataset(raw: Path, kind: str) -> list[str]:
    """Write the raw data set of a kind and return the validation cases."""
    folder = raw / NAME
    train = [f"tr_{i:02d}" for i in range(TRAINING)]
    val = [f"va_{i:02d}" for i in range(VALIDATION)]
    lacking = [] if kind == "complete" else train[TRAINING // 2 :]
    for number, name in enumerate(train):
        write_case(folder, name, "tr", number, name in lacking, False)
    for number, name in enumerate(val):
        write_case(folder, name, "va", number, False, False)
    for number in range(UNLABELED):
        write_case(folder, f"un_{number:02d}", "un", number, False, True)
    content = {"channel_names": {"0": "MR"}, "labels": LABELS, "file_ending": ".nii.gz"}
    content["numTraining"] = len(train) + len(val)
    files = {"dataset.json": content, "splits_final.json": [{"train": train, "val": val}]}
    if kind == "declared":
        annotated = [name for name in LABELS if name not in ("background", LACKING)]
        files["labeled_classes.json"] = dict.fromkeys(lacking, annotated)
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    return val


def call(environment: dict[str, str], *words: str) -> None:
    """Run a command of nnU-Net or of this package; what it says goes to a file."""
    log = Path(environment["nnUNet_results"], "log.txt")
    with log.open("a", encoding="utf-8") as file:
        subprocess.run(
            [find_command(words[0]), *words[1:]],
            env={**os.environ, **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            check=True,
        )


def prepare(root: Path, kind: str) -> dict[str, str]:
    """Write, plan and preprocess the data set of a kind, once, and return nnU-Net's variables."""
    environment = {
        f"nnUNet_{name}": str((root / kind / name).absolute())
        for name in ("raw", "preprocessed", "results")
    }
    preprocessed = Path(environment["nnUNet_preprocessed"], NAME)
    if (preprocessed / "prepared").exists():
        return environment
    for folder in environment.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    make_dataset(Path(environment["nnUNet_raw"]), kind)
    number = NAME[7:10]
    call(environment, "nnUNetv2_semisup_plan_and_preprocess", "-d", number, "-c", "2d", "--no_pp")
    plans = preprocessed / "nnUNetPlans.json"
    content = json.loads(plans.read_text(encoding="utf-8"))
    configuration = content["configurations"]["2d"]
    configuration["batch_size"] = 4
    arguments = configuration["architecture"]["arch_kwargs"]
    arguments["features_per_stage"] = [12 * 2**i for i in range(arguments["n_stages"])]
    plans.write_text(json.dumps(content), encoding="utf-8")
    for command in ("nnUNetv2_preprocess", "nnUNetv2_semisup_preprocess"):
        call(environment, command, "-d", number, "-c", "2d", "-np", "1")
    (preprocessed / "prepared").touch()
    return environment


def dice_of(environment: dict[str, str], trainer: str, steps: int, seed: int) -> list[float]:
    """Train, unless that was done, and return each organ's Dice."""
    results = Path(environment["nnUNet_results"], f"seed{seed}")
    results.mkdir(exist_ok=True)
    fold = results / NAME / f"{trainer}__nnUNetPlans__2d" / "fold_0"
    if not (fold / "validation" / "summary.json").exists():
        epochs = max(1, steps // 100)
        values = f"seed={seed},num_epochs={epochs},num_iterations_per_epoch={steps // epochs}"
        values += ",num_val_iterations_per_epoch=2,cpu_threads=1"
        settings = {"nnUNet_semisup_set": values, "nnUNet_results": str(results)}
        words = ["nnUNetv2_train", NAME[7:10], "2d", "0", "-tr", trainer, "-device", "cpu"]
        call({**environment, **settings, "nnUNet_n_proc_DA": "1"}, *words)
    preprocessed = Path(environment["nnUNet_preprocessed"], NAME)
    found = evaluate_folders(
        preprocessed / "gt_segmentations",
        fold / "validation",
        dataset_json=preprocessed / "dataset.json",
        allow_missing=True,
    )
    names = [name for name in LABELS if name != "background"]
    return [fmean(c.classes[name].values["Dice"] for c in found.cases) for name in names]


def main() -> None:
    """Train the rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows: list[tuple[object, ...]] = []
    for title, trainer, kind in ROWS:
        environment = prepare(options.work, kind)
        rows.append((title, trainer, *dice_of(environment, trainer, options.steps, options.seed)))
    header = ("third organ in half of the cases", "trainer", *list(LABELS)[1:])
    print(format_table(header, rows, markdown=True))


if __name__ == "__main__":
    main()
