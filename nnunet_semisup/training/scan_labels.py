"""Trainers that learn from labels of whole unlabeled scans, which they give now and then.

A label of a whole scan costs a prediction of it once in a while in place of a teacher's pass in
every step, sees more than a patch, and says where the classes are, so that patches can be drawn
around them. The rounds of self-training that people make by hand, within one training.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_semisup.data.scan_labels import LabeledScans, write_scan_label
from nnunet_semisup.data.unlabeled import UnlabeledDataset
from nnunet_semisup.inference.scan_labels import ScanLabeler
from nnunet_semisup.training.ranges import Count, Fraction
from nnunet_semisup.training.teacher import TeacherTrainer

FOLDER = "unlabeled_labels"
"""In the fold's folder: a folder a labeling, of which the last two are kept."""


class ScanLabelTrainer(TeacherTrainer):
    """Train on labels of whole unlabeled scans by the teacher, anew at even distances."""

    labeling_start: Fraction = 0.2
    """Fraction of training with labeled patches alone, after which scans are labeled first."""
    labelings: Count = 4
    """How often all unlabeled scans are labeled, at even distances from then on."""
    label_confidence: Fraction = 0.8
    """Least confidence with which a voxel's label is learned from."""
    label_mirroring: bool = False
    """Label by the mean of mirrored images, for eight times the time in 3D."""
    unlabeled_foreground: Fraction = 0.33
    """Share of unlabeled patches around a labeled class, as nnU-Net's of labeled ones."""

    labelings_done = 0

    @property
    def labelings_due(self) -> int:
        """Labelings that the training had come to when the epoch began."""
        begun, rest = self.current_epoch / self.num_epochs, 1.0 - self.labeling_start
        starts = [self.labeling_start + rest * k / self.labelings for k in range(self.labelings)]
        # An epoch is not late by a rounding: 0.2 + 0.8 * 2 / 4 is above 0.6.
        return max(self.labelings_done, sum(begun >= start - 1e-9 for start in starts))

    def on_epoch_start(self) -> None:
        """Begin as nnU-Net does; where scans are to be labeled anew, with new loaders."""
        super().on_epoch_start()
        if self.labelings_due > self.labelings_done:
            self.stop_workers()
            self.dataloader_train, self.dataloader_val = self.get_dataloaders()

    def unlabeled_scans(self, folders: dict[str, str]) -> UnlabeledDataset:
        """Return what the unlabeled patches are cut from, with labels where it is time for them."""
        if not self.labelings_due:
            return super().unlabeled_scans(folders)
        if self.labelings_due > self.labelings_done or not self.label_folder.is_dir():
            self.labelings_done = self.labelings_due
            self._label_scans(folders)
        return LabeledScans(folders, self.label_folder, self.unlabeled_foreground)

    @property
    def label_folder(self) -> Path:
        """Folder with the labels of the last labeling."""
        return Path(self.output_folder, FOLDER, str(self.labelings_done))

    def _label_scans(self, folders: dict[str, str]) -> None:
        """Label all scans, each rank its part, into a folder that appears when they are done."""
        began = time.time()
        unfinished = self.label_folder.with_name(f".{self.label_folder.name}")
        if self.local_rank == 0:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        self.ranks.wait()
        cases = UnlabeledDataset(folders)
        labeler = ScanLabeler(
            self, self._teacher_network, self.label_confidence, self.label_mirroring
        )
        for case in self.ranks.share(cases.identifiers):
            image = np.asarray(cases.load_case(case)[0][:])
            write_scan_label(unfinished, case, labeler.label(image), self.seed or 0)
        self.ranks.wait()
        if self.local_rank == 0:
            shutil.rmtree(self.label_folder, ignore_errors=True)
            unfinished.rename(self.label_folder)
            self._remove_old()
        self.ranks.wait()
        number, seconds = len(cases.identifiers), time.time() - began
        self.print_to_log_file(
            f"labeled {number} unlabeled scans, {self.labelings_done} of {self.labelings} times; "
            f"{seconds:.0f} s"
        )

    def _remove_old(self) -> None:
        """Remove labels that no checkpoint needs: a run goes on from the last two at most."""
        for folder in self.label_folder.parent.iterdir():
            if folder.name.isdigit() and int(folder.name) < self.labelings_done - 1:
                shutil.rmtree(folder)

    def extra_state(self) -> dict[str, Any]:
        """Return everything that resuming needs beyond nnU-Net's own; a method extends it."""
        return {**super().extra_state(), "labelings_done": self.labelings_done}

    def load_extra_state(self, state: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        """Restore what :meth:`extra_state` gave; a method extends it."""
        super().load_extra_state(state, checkpoint)
        self.labelings_done = state["labelings_done"]
