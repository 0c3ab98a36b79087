"""Annotated scans that move from imagesUn to imagesTr, or nothing at all."""

from __future__ import annotations

import errno
import json
import os
import shutil

import numpy as np
import pytest
import SimpleITK

from nnunet_semisup.cli.rank import main
from nnunet_semisup.dataset_conversion import newly_labeled
from nnunet_semisup.dataset_conversion.checking import raw_dataset
from nnunet_semisup.dataset_conversion.checking.raw_dataset import verify_dataset
from nnunet_semisup.dataset_conversion.newly_labeled import move_to_labeled
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.raw import find_dataset
from tests.helpers import make_raw_dataset, nnunet_folders, write_image


@pytest.fixture
def folders(tmp_path, monkeypatch):
    raw = nnunet_folders(tmp_path, monkeypatch).raw
    made = make_raw_dataset(
        raw, 501, "Blobs", (12, 14, 16), num_labeled=2, num_unlabeled=3, num_channels=2
    )
    content = json.loads((made.folder / "dataset.json").read_text())
    content["semisup"] = {"num_unlabeled": 3, "source": "kept"}
    (made.folder / "dataset.json").write_text(json.dumps(content))
    return find_dataset(501)


@pytest.fixture
def masks(folders, tmp_path):
    folder = tmp_path / "masks"
    for case, value in (("unl_000", 1), ("unl_002", 1)):
        label = np.zeros((12, 14, 16), np.uint8)
        label[4:8, 4:8, 4:9] = value
        write_image(folder / f"{case}.nii.gz", label)
    return folder


def state(raw):
    return {p.relative_to(raw): p.read_bytes() for p in raw.rglob("*") if p.is_file()}


def test_images_move_and_masks_are_copied(folders, masks):
    before = state(folders.raw)
    moved = move_to_labeled(folders, masks)
    assert moved.cases == ("unl_000", "unl_002")
    names = {
        sub: sorted(p.name for p in (folders.raw / sub).iterdir())
        for sub in ("imagesTr", "imagesUn", "labelsTr")
    }
    assert names["imagesUn"] == ["unl_001_0000.nii.gz", "unl_001_0001.nii.gz"]
    assert names["labelsTr"] == [
        f"{c}.nii.gz" for c in ("lab_000", "lab_001", "unl_000", "unl_002")
    ]
    assert len(names["imagesTr"]) == 8
    after = state(folders.raw)
    assert sorted(before.values()) == sorted(
        [
            after[k]
            for k in after
            if k.name not in ("dataset.json",)
            and not (k.parent.name == "labelsTr" and "unl" in k.name)
        ]
        + [v for k, v in before.items() if k.name == "dataset.json"]
    )
    content = json.loads((folders.raw / "dataset.json").read_text())
    assert content["numTraining"] == 4
    assert content["semisup"] == {"num_unlabeled": 1, "source": "kept"}
    assert verify_dataset(folders).findings.faults == []
    assert len(list(masks.iterdir())) == 2  # the user's own stay


def _size(masks):
    write_image(masks / "unl_000.nii.gz", np.ones((12, 14, 15), np.uint8))


def _value(masks):
    label = np.zeros((12, 14, 16), np.uint8)
    label[2:4] = 7
    write_image(masks / "unl_002.nii.gz", label)


def _empty(masks):
    write_image(masks / "unl_002.nii.gz", np.zeros((12, 14, 16), np.uint8))


def _spacing(masks):
    image = SimpleITK.ReadImage(str(masks / "unl_000.nii.gz"))
    image.SetSpacing((1, 1, 3))
    SimpleITK.WriteImage(image, str(masks / "unl_000.nii.gz"))


def _unknown(masks):
    shutil.copy(masks / "unl_000.nii.gz", masks / "other.nii.gz")


def _damaged(masks):
    file = masks / "unl_000.nii.gz"
    file.write_bytes(file.read_bytes()[:60])


@pytest.mark.parametrize("spoil", [_size, _value, _empty, _spacing, _unknown, _damaged])
def test_a_mask_that_verify_would_refuse_moves_nothing(folders, masks, spoil):
    spoil(masks)
    before = state(folders.raw.parent)
    with pytest.raises(UserError, match=r"nothing was moved|Name each"):
        move_to_labeled(folders, masks)
    assert state(folders.raw.parent) == before


def test_a_scan_that_is_a_copy_of_a_test_case_is_refused(folders, masks):
    for channel in (0, 1):
        (folders.raw / "imagesTs").mkdir(exist_ok=True)
        shutil.copy(
            folders.raw / "imagesUn" / f"unl_000_000{channel}.nii.gz",
            folders.raw / "imagesTs" / f"tst_000_000{channel}.nii.gz",
        )
    with pytest.raises(UserError, match="tst_000"):
        move_to_labeled(folders, masks)


@pytest.mark.parametrize("moves", [0, 3, 6])
def test_a_killed_move_is_finished_at_the_next_start(folders, masks, monkeypatch, moves):
    monkeypatch.setattr(raw_dataset, "_faults_by_nnunet", lambda *_: [])  # It starts processes.
    done = []

    def replace(source, target):
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(source)
        real(source, target)

    real = os.replace
    monkeypatch.setattr(newly_labeled.os, "replace", _only_there(folders.raw, replace, real))
    with pytest.raises(KeyboardInterrupt):
        move_to_labeled(folders, masks)
    monkeypatch.setattr(newly_labeled.os, "replace", real)
    assert move_to_labeled(folders, masks).cases == ("unl_000", "unl_002")
    assert verify_dataset(folders).findings.faults == []
    assert not (folders.raw / newly_labeled.JOURNAL).exists()


def _only_there(raw, counted, real):
    """Count renames of the move alone: those of other files, and of the journal, go through."""

    def replace(source, target):
        own = str(target).startswith(str(raw)) and str(target) != str(raw / newly_labeled.JOURNAL)
        (counted if own else real)(source, target)

    return replace


def test_the_command_says_what_is_left_to_do(folders, masks, capsys):
    (folders.raw / "splits_final.json").write_text(
        json.dumps([{"train": ["lab_000"], "val": ["lab_001"]}])
    )
    with pytest.raises(SystemExit) as end:
        main(["-d", "501", "--moved-to-labeled", str(masks), "-np", "1"])
    assert end.value.code == 0
    told = capsys.readouterr().out
    assert "unl_000, unl_002" in told
    assert "Add them to 'train'" in told
    assert "nnUNetv2_semisup_plan_and_preprocess -d 501 --clean" in told


def test_a_data_set_that_lists_its_cases_is_left_to_the_user(folders, masks):
    file = folders.raw / "dataset.json"
    content = {**json.loads(file.read_text()), "dataset": {}}
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="under 'dataset'"):
        move_to_labeled(folders, masks)


def test_folders_on_different_disks_are_no_obstacle(folders, masks, monkeypatch):
    """os.replace refuses to move a file to another file system."""
    replace = os.replace

    def refuse(source, target):
        if str(source).startswith(str(folders.raw / "imagesUn")):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        replace(source, target)

    images = {p.name: p.read_bytes() for p in (folders.raw / "imagesUn").glob("unl_002*")}
    monkeypatch.setattr(newly_labeled.os, "replace", refuse)
    move_to_labeled(folders, masks)
    for name, content in images.items():
        assert (folders.raw / "imagesTr" / name).read_bytes() == content
        assert not (folders.raw / "imagesUn" / name).exists()


def test_a_folder_that_is_closed_is_named_before_anything_moves(folders, masks, monkeypatch):
    closed = folders.raw / "imagesUn"
    access = os.access
    monkeypatch.setattr(newly_labeled.os, "access", lambda p, mode: p != closed and access(p, mode))
    before = state(folders.raw)
    with pytest.raises(UserError, match="imagesUn cannot be written to; nothing was moved"):
        move_to_labeled(folders, masks)
    assert state(folders.raw) == before
