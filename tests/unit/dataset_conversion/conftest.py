"""Folders of nnU-Net and tiny downloads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.dataset_conversion.trees import Download, make_download


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
    place = "nnunet_semisup.dataset_conversion.consistency.near_duplicates"
    monkeypatch.setattr(place, lambda *_: [])
