"""Stand in for the commands of a round: what comes out depends on what went in, and takes a while.

Predictions depend on the model's file, a training on the labels of its data set. With ``--c`` a
training goes on at the epoch it was at. Each command notes that it was started in ``calls.txt``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import SimpleITK  # Alone: the package would take seconds to import in each of these processes.

RAW, PREPROCESSED, RESULTS = "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"
SETTINGS = "nnUNet_semisup_set"
SHAPE, EPOCHS, PAUSE = (6, 6, 8), 3, 0.03


def folder_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def text_of(checkpoint: Path) -> str:
    """Return what makes a checkpoint's predictions; the first one is torch's, the others text."""
    return checkpoint.read_text(encoding="utf-8", errors="replace")


def write_image(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path), True)


def rank(given: dict[str, str], words: list[str]) -> None:
    model, output = Path(given["-m"]), Path(given["-o"])
    checkpoint = text_of(next(model.glob("fold_*/checkpoint_final.pth")))
    raw = next(Path(os.environ[RAW]).glob(f"Dataset{given['-d']}_*"))
    cases = sorted(p.name.removesuffix("_0000.nii.gz") for p in (raw / "imagesUn").iterdir())
    parts, part = int(given.get("-num_parts", 1)), int(given.get("-part_id", 0))
    scores = []
    for case in cases[part::parts]:
        time.sleep(PAUSE)
        draw = np.random.default_rng(list(hashlib.sha256(f"{checkpoint}{case}".encode()).digest()))
        label, unsure = np.zeros(SHAPE, np.uint8), draw.random(SHAPE).astype(np.float32)
        label[1:4, 1:4, 1 : 3 + draw.integers(4)] = 1
        write_image(output / f"{case}.nii.gz", label)
        write_image(output / "uncertainty" / f"{case}.nii.gz", unsure)
        score = {"case": case, "disagreement": float(draw.random()), "entropy": 0.2}
        score |= {"rounds": float(draw.random()) if "--before" in words else None}
        score |= {"missing": [], "factor": 1.0, "fragments": 0.0, "reasons": []}
        score |= {name: {"blob": 1.0} for name in ("disagreement_of", "entropy_of", "volume_of")}
        scores.append(score)
    if parts > 1:
        return
    partial = output / "ranking.tmp"
    partial.write_text(json.dumps(scores), encoding="utf-8")
    partial.rename(output / "ranking.json")


def preprocess(given: dict[str, str], _: list[str]) -> None:
    raw = next(Path(os.environ[RAW]).glob(f"Dataset{given['-d']}_*"))
    folder = Path(os.environ[PREPROCESSED], raw.name, "gt_segmentations")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in sorted((raw / "labelsTr").iterdir()):
        time.sleep(PAUSE / 3)
        shutil.copy(file, folder)


def train(given: dict[str, str], words: list[str]) -> None:
    number, configuration, fold = words[:3]
    preprocessed = next(Path(os.environ[PREPROCESSED]).glob(f"Dataset{number}_*"))
    name = f"{given['-tr']}__{given['-p']}__{configuration}"
    folder = Path(os.environ[RESULTS], preprocessed.name, name, f"fold_{fold}")
    (folder / "validation").mkdir(parents=True, exist_ok=True)
    latest, final = folder / "checkpoint_latest.pth", folder / "checkpoint_final.pth"
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    begin = int(latest.read_text(encoding="utf-8")) if "--c" in words and latest.exists() else 0
    if "seed=13" in os.environ.get(SETTINGS, ""):
        sys.exit("this training fails")
    for epoch in range(begin, EPOCHS):
        time.sleep(PAUSE)
        with (folder / "epochs.txt").open("a", encoding="utf-8") as log:
            print(epoch, file=log)
        latest.write_text(str(epoch + 1), encoding="utf-8")
        if stopped:
            sys.exit(143)
    start = text_of(Path(given.get("-pretrained_weights", os.devnull)))
    final.write_text(folder_hash(preprocessed / "gt_segmentations") + start, encoding="utf-8")
    metrics = [
        {"reference_file": f"{case}.nii.gz", "metrics": {"1": {"Dice": 0.5 + 0.1 * int(fold)}}}
        for case in json.loads((preprocessed / "splits_final.json").read_text(encoding="utf-8"))[
            int(fold)
        ]["val"]
    ]
    text = json.dumps({"metric_per_case": metrics})
    (folder / "validation" / "summary.json").write_text(text, encoding="utf-8")


COMMANDS = {
    "nnUNetv2_semisup_rank": rank,
    "nnUNetv2_preprocess": preprocess,
    "nnUNetv2_semisup_preprocess": preprocess,
    "nnUNetv2_train": train,
}

if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    COMMANDS[command](dict(pairwise(rest)), rest)
