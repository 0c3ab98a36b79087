"""A planned tiny data set, made once and copied for every test that needs one."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

from tests.helpers import (
    Folders,
    RawDataset,
    make_raw_dataset,
    nnunet_folders,
    plan_and_preprocess_labeled,
)

DATASET_ID = 501
LABELS = {"background": 0, "small": 1, "large": 2}


@dataclass(frozen=True)
class Planned:
    """A data set with plans in nnU-Net's folders."""

    folders: Folders
    raw: RawDataset

    @property
    def preprocessed(self) -> Path:
        return self.folders.preprocessed / self.raw.name

    @property
    def images(self) -> Path:
        return self.raw.folder / "imagesUn"

    def snapshot(self) -> dict[str, tuple[int, int]]:
        """Size and modification time of everything in nnU-Net's folders."""
        root = self.folders.raw.parent
        return {
            str(path.relative_to(root)): (path.lstat().st_size, path.lstat().st_mtime_ns)
            for path in sorted(root.rglob("*"))
        }


@pytest.fixture(scope="session")
def _made_once(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("planned")
        folders = nnunet_folders(root, patch)
        made = make_raw_dataset(
            folders.raw,
            DATASET_ID,
            "Blobs",
            (16, 20, 18),
            num_labeled=3,
            num_unlabeled=3,
            num_channels=2,
            labels=LABELS,
            spacing=(2.0, 1.0, 1.0),
            num_test=1,
        )
        plan_and_preprocess_labeled(DATASET_ID, ["2d", "3d_fullres"])
    return root, made


@pytest.fixture
def planned(_made_once, tmp_path, monkeypatch):
    """A fresh copy with 2 channels, plans, and preprocessed labeled cases (2d, 3d_fullres)."""
    root, made = _made_once
    shutil.copytree(root, tmp_path / "nnunet")
    folders = nnunet_folders(tmp_path / "nnunet", monkeypatch)
    copied = RawDataset(folders.raw / made.name, made.name, made.labeled, made.unlabeled, made.test)
    return Planned(folders, copied)


@pytest.fixture
def preprocessed_ids(monkeypatch):
    """Ids in the order in which nnU-Net's preprocessor was asked for them."""
    asked = []
    original = DefaultPreprocessor.run_case_save

    def record(self, output, *args):
        asked.append(os.path.basename(output))
        return original(self, output, *args)

    monkeypatch.setattr(DefaultPreprocessor, "run_case_save", record)
    return asked
