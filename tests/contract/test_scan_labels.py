"""Scans that a training labels itself: when, how, and what is left of it in the folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_semisup.data.scan_labels import DOUBTFUL, LabeledScans
from nnunet_semisup.data.unlabeled import UnlabeledDataset
from nnunet_semisup.inference.scan_labels import ScanLabeler
from nnunet_semisup.registry import find_method
from nnunet_semisup.training.scan_labels import FOLDER
from nnunet_semisup.training.streams import Streams

SEMISUP = find_method("nnUNetTrainerSemiSup")


def folders_of(trainer):
    return sorted(path.name for path in Path(trainer.output_folder, FOLDER).iterdir())


def epochs_of_labelings(trainer):
    """Return the epochs in which labels would be due that are not due one before."""
    due = []
    for epoch in range(-1, trainer.num_epochs):
        trainer.current_epoch, trainer.labelings_done = epoch, 0
        due.append(trainer.labelings_due)
    return [epoch for epoch in range(trainer.num_epochs) if due[epoch + 1] > due[epoch]]


@pytest.mark.parametrize("kind", ["labels3d", "regions3d", "labels2d", "regions2d"])
def test_they_are_labeled_as_nnunet_predicts_with_doubt_where_it_is_unsure(build, kind):
    trainer = build(SEMISUP, kind, label_confidence=0.0)
    sure = trainer.label_folder
    cases = UnlabeledDataset(trainer.unlabeled_cases.folders)
    labels = LabeledScans(trainer.unlabeled_cases.folders, sure)
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    network = trainer._teacher_network
    managers = trainer.plans_manager, trainer.configuration_manager
    predictor.manual_initialization(network, *managers, None, trainer.dataset_json, "", (0,))
    for case in cases.identifiers:
        image = torch.from_numpy(np.asarray(cases.load_case(case)[0][:]))
        logits = predictor.predict_sliding_window_return_logits(image)
        expected = trainer.label_manager.convert_logits_to_segmentation(logits)
        found = labels.load_case(case)[1][:][0]
        assert np.array_equal(found, np.asarray(expected)), case
    trainer.label_confidence = 1.0
    trainer._label_scans(trainer.unlabeled_cases.folders)
    assert (labels.load_case(cases.identifiers[0])[1][:] == DOUBTFUL).all()


def test_labels_come_at_even_distances_and_the_last_two_are_kept(build, capsys):
    settings = {"num_epochs": 10, "labeling_start": 0.2, "labelings": 4, "label_confidence": 0.0}
    trainer = build(SEMISUP, "labels2d", start=False, **settings)
    trainer.run_training()
    said = [line for line in capsys.readouterr().out.splitlines() if "unlabeled scans, " in line]
    assert [line.split("scans, ")[1].split(";")[0] for line in said] == [
        f"{number} of 4 times" for number in (1, 2, 3, 4)
    ]
    assert folders_of(trainer) == ["3", "4"]
    assert epochs_of_labelings(trainer) == [2, 4, 6, 8]
    named = [set(row) for row in trainer.monitor.rows]
    assert ["mixed" in names for names in named] == [False] * 2 + [True] * 8
    assert ["supervised" in names for names in named] == [True] * 2 + [False] * 8


def test_a_run_that_is_continued_takes_the_labels_that_are_there(build):
    settings = {"num_epochs": 4, "labeling_start": 0.0, "labelings": 2, "label_confidence": 0.0}
    trainer = build(SEMISUP, "labels2d", **settings)
    written = {path: path.stat().st_mtime_ns for path in trainer.label_folder.iterdir()}
    file = str(Path(trainer.output_folder, "checkpoint_latest.pth"))
    trainer.write_checkpoint(file, 0)
    again = build(SEMISUP, "labels2d", start=False, **settings)
    again.output_folder = trainer.output_folder
    again.load_checkpoint(file)
    again.on_train_start()
    assert again.labelings_done == 1
    assert {path: path.stat().st_mtime_ns for path in again.label_folder.iterdir()} == written


def test_patches_are_drawn_around_what_was_labeled(build):
    trainer = build(SEMISUP, "labels3d", label_confidence=0.0, unlabeled_foreground=1.0)
    _, unlabeled = trainer.to_device(next(trainer.dataloader_train))
    assert unlabeled.label is not None
    assert unlabeled.label.shape == (*unlabeled.valid.shape,)
    assert ((unlabeled.label > 0) & (unlabeled.label < DOUBTFUL)).flatten(1).any(1).all()


def test_one_patch_a_batch_is_drawn_around_labels_as_often_as_set(build, datasets):
    """Of so few, nnU-Net's rule for the last ones of a batch would choose none."""
    settings = {"unlabeled_batch_size": 1, "unlabeled_foreground": 0.33}
    trainer = build(SEMISUP, "labels3d", label_confidence=0.0, **settings)
    cases = trainer.unlabeled_scans(trainer.unlabeled_cases.folders)
    loader = Streams(trainer).unlabeled(cases, 1)
    np.random.seed(0)
    assert 0.2 < np.mean([loader.get_do_oversample(0) for _ in range(300)]) < 0.5
    assert not Streams(trainer).unlabeled(cases, 2).get_do_oversample(0)


def test_logits_come_to_the_host_before_nnunet_makes_labels_of_them(build):
    """A predictor on a GPU leaves them there, and nnU-Net 2.8.1 calls numpy() on probabilities."""
    trainer = build(SEMISUP, "labels3d", label_confidence=0.0)
    labeler = ScanLabeler(trainer, trainer._teacher_network, 0.0, True)
    image = np.random.default_rng(0).random((1, 16, 16, 16)).astype(np.float32)
    expected = labeler.label(image)
    predict = labeler.predictor.predict_sliding_window_return_logits

    class OnDevice:
        def __init__(self, logits):
            self.logits = logits

        def cpu(self):
            return self.logits

    labeler.predictor.predict_sliding_window_return_logits = lambda x: OnDevice(predict(x))
    assert np.array_equal(labeler.label(image), expected)
