"""Folders of nnU-Net and tiny downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.dataset_conversion.trees import Download, make_download
from tests.unit.dataset_conversion.trees_generic import make_folders, make_photos


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """nnU-Net's three folders, empty."""
    made = {}
    for name in ("raw", "preprocessed", "results"):
        made[name] = tmp_path / f"nnUNet_{name}"
        made[name].mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(made[name]))
    return made


@pytest.fixture
def download(tmp_path: Path) -> Download:
    """The challenge's nrrd tree."""
    return make_download(tmp_path / "download")


@pytest.fixture
def h5_download(tmp_path: Path) -> Download:
    """The community's h5 tree."""
    return make_download(tmp_path / "h5_download", "h5")


@pytest.fixture
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """No search for similar scans, which tiny ones all are; equal ones are found nevertheless."""
    place = "nnunet_semisup.dataset_conversion.checking.all_cases.near_duplicates"
    monkeypatch.setattr(place, lambda *_: [])


@pytest.fixture
def folders(tmp_path: Path) -> Any:
    """A user's folders of scans and labels."""
    return make_folders(tmp_path / "data")


@pytest.fixture
def photos(tmp_path: Path) -> Any:
    """A user's folders of photographs and masks."""
    return make_photos(tmp_path / "data")
