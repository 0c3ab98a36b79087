"""A small benchmark on disk, as finished runs leave it."""

from __future__ import annotations

import json
import re

import numpy as np
import SimpleITK
from PIL import Image

from nnunet_semisup.benchmark.design import Design, Layout, Row, Run, write_design
from nnunet_semisup.benchmark.record import Record, write_record
from nnunet_semisup.evaluation.evaluate import evaluate_folders
from nnunet_semisup.evaluation.report import report_dict

DATASET = "Dataset501_Fake"
BASELINE = Row("nnUNetTrainerSupervised")
BETTER = Row("nnUNetTrainerMeanTeacher")
WORSE = Row("nnUNetTrainerVQSeg", "qpm_epsilon=0.0")
LONGER = Row("nnUNetTrainerSupervised", steps_factor=2.0)
ROWS = (BASELINE, BETTER, WORSE, LONGER)
EVALUATION = tuple(f"test_{number}" for number in range(9))
LOG = """
#######################################################################
Please cite the following paper when using nnU-Net:
#######################################################################

2026-11-28 13:38:35.435939: do_dummy_2d_data_aug: False
2026-11-28 13:38:35.444246:
{epochs}2026-11-28 13:49:56.663745: Training done.
2026-11-28 13:50:30.881947: Mean Validation Dice:  0.7723729596929276
"""
EPOCH = """2026-11-28 13:38:35.444275: Epoch {number}
2026-11-28 13:38:35.444333: Current learning rate: 0.01
2026-11-28 13:38:48.196654: train_loss {loss}
2026-11-28 13:38:48.196892: val_loss {val_loss}
2026-11-28 13:38:48.196932: Pseudo dice {dice}
2026-11-28 13:38:48.196984: Epoch time: {seconds} s
2026-11-28 13:38:48.197012: Yayy! New best EMA pseudo Dice: 0.5270000100135803
2026-11-28 13:38:48.650849:
"""


def as_logged(text):
    """Text of nnU-Net (2.8.1), whose every line ends with a blank."""
    return re.sub(r"(?m)^(\d{4}-.*)$", r"\1 ", text)


def epoch_log(number, loss=-0.5, val_loss=-0.4, dice="[np.float32(0.527)]", seconds=12.75):
    return as_logged(
        EPOCH.format(number=number, loss=loss, val_loss=val_loss, dice=dice, seconds=seconds)
    )


class Fake:
    """A benchmark's folder, and functions that fill it.

    Args:
        folder: of the benchmark.
        labels: of its dataset.json.
        flat: 2D pictures in place of volumes.
    """

    def __init__(
        self, folder, labels=None, flat=False, rows=ROWS, budgets=(2,), seeds=(0,)
    ) -> None:
        self.layout = Layout(folder)
        self.labels = labels or {"background": 0, "organ": 1}
        self.flat = flat
        self.ending = ".png" if flat else ".nii.gz"
        self.design = Design(
            dataset=DATASET,
            raw="raw",
            configuration="2d" if flat else "3d_fullres",
            rows=tuple(rows),
            budgets=tuple(budgets),
            seeds=tuple(seeds),
            steps=40,
            steps_per_epoch=10,
            pool=tuple(f"pool_{number}" for number in range(6)),
            unlabeled=("unlabeled_0",),
            evaluation=EVALUATION,
            left_out=("copy_0",),
            order="names in their order",
            spacing=(2.0, 1.0, 1.0),
        )
        write_design(self.layout, self.design)
        for budget in budgets:
            self._write_data(budget)

    def _write_data(self, budget):
        preprocessed = self.layout.preprocessed(self.design, budget)
        raw = self.layout.budget(budget) / "raw" / DATASET
        images, unlabeled = raw / "imagesTr", raw / "imagesUn"
        references = preprocessed / "gt_segmentations"
        for path in (images, unlabeled, references):
            path.mkdir(parents=True)
        for case in (*self.design.pool[budget:], *self.design.unlabeled, "of_the_raw_data_set"):
            (unlabeled / f"{case}_0000{self.ending}").touch()
        content = {
            "channel_names": {"0": "MR"},
            "labels": self.labels,
            "numTraining": 2,
            "file_ending": self.ending,
        }
        for folder in (raw, preprocessed):
            (folder / "dataset.json").write_text(json.dumps(content))
        for number, case in enumerate(EVALUATION):
            label = self.label(number)
            self._save(references / f"{case}{self.ending}", label)
            noise = np.random.default_rng(number).integers(0, 40, label.shape)
            self._save(images / f"{case}_0000{self.ending}", (label * 60 + noise).astype(np.uint8))

    def label(self, number, shift=0):
        """A label map with a box of each class, moved by ``shift`` voxels; the last has none."""
        label = np.zeros((10, 14, 16), dtype=np.uint8)
        values = [value for value in self.labels.values() if value]
        for value in values[: None if number < len(EVALUATION) - 1 else len(values) - 1]:
            start = 2 + 5 * (value - 1) + shift
            label[2:8, 2 : 8 + number % 3, start : start + 4] = value
        return label[4] if self.flat else label

    def _save(self, path, array):
        if self.flat:
            Image.fromarray(array).save(path)
            return
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing((1.0, 1.0, 2.0))
        SimpleITK.WriteImage(image, str(path))

    def finish(self, run, shifts=None):
        """Leave what a finished run leaves; ``shifts``: by how far each case is missed."""
        fold = self.layout.fold(self.design, run)
        validation = fold / "validation"
        validation.mkdir(parents=True)
        default = {BASELINE: 2, BETTER: 1, WORSE: 3, LONGER: 2}[run.row]
        for number, case in enumerate(EVALUATION):
            shift = shifts[number] if shifts else (0 if number == 3 else default)
            self._save(validation / f"{case}{self.ending}", self.label(number, shift))
        preprocessed = self.layout.preprocessed(self.design, run.budget)
        evaluation = evaluate_folders(
            preprocessed / "gt_segmentations", validation, preprocessed / "dataset.json"
        )
        self.layout.evaluation(run).write_text(json.dumps(report_dict(evaluation)))
        epochs = self.design.steps_of(run.row) // self.design.steps_per_epoch
        text = "".join(epoch_log(n, loss=-0.1 * n, seconds=5.0 + run.seed) for n in range(epochs))
        (fold / "training_log_2026_11_28_13_38_35.txt").write_text(LOG.format(epochs=text))
        record = Record(
            "finished",
            attempts=1,
            seconds=1800.0,
            peak_mib=700.0,
            commands=(f"nnUNetv2_train 501 3d_fullres 0 -tr {run.row.trainer}",),
            environment={"nnUNet_semisup_set": f"seed={run.seed}"},
            versions={"nnunetv2": "2.8.1", "torch": "2.15.0"},
            hashes={"splits_final.json": "5f" * 32},
            machine="a processor",
        )
        write_record(self.layout, run, record)

    def finish_all(self):
        for run in self.design.runs():
            self.finish(run)
        return self

    def fail(self, run, fault):
        write_record(self.layout, run, Record("failed", attempts=2, fault=fault))

    def run(self, row, budget=2, seed=0):
        return Run(row, budget, seed)
