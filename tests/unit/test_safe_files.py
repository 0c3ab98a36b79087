"""Pickles and checkpoints are read without running what is in them."""

from __future__ import annotations

import collections
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import nnunet_semisup
from nnunet_semisup.errors import UserError
from nnunet_semisup.inference.request import Request
from nnunet_semisup.inference.stored import Stored
from nnunet_semisup.safe_files import read_checkpoint_file, read_pickle
from nnunet_semisup.training.checkpoint import random_states, read_checkpoint
from nnunet_semisup.training.start_files import read_start_file

PROPERTIES = {
    "spacing": (3.0, 1.0, 1.0),
    "sitk_stuff": {"origin": (0.0, 1.0)},
    "class_locations": {1: np.arange(12).reshape(3, 4), (1, 2): np.zeros((0, 4), np.int32)},
    "mean": np.float32(1.5),
    "affine": np.asfortranarray(np.eye(4)),
    "box": slice(1, 3),
    "seen": {1, 2},
    "ordered": collections.OrderedDict(a=1),
}
"""As nnU-Net's preprocessing writes them, and more."""


class Harm:
    """Make a folder when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


class Kept(dict):
    """An object of a stranger's class, with state and items."""


@pytest.mark.parametrize("protocol", range(4, pickle.HIGHEST_PROTOCOL + 1))
def test_properties_of_a_case_are_read(tmp_path, protocol):
    (tmp_path / "case.pkl").write_bytes(pickle.dumps(PROPERTIES, protocol))
    found, others = read_pickle(tmp_path / "case.pkl")
    assert others == []
    np.testing.assert_equal(found, PROPERTIES)
    assert found["class_locations"][1].dtype == np.int64


def test_what_else_a_pickle_names_is_told_and_not_run(tmp_path):
    kept = Kept(a=1)
    kept.state = 2
    content = {"x": Harm(tmp_path / "made"), "y": kept, "class_locations": {1: [1]}}
    (tmp_path / "case.pkl").write_bytes(pickle.dumps(content))
    found, others = read_pickle(tmp_path / "case.pkl", allowed=(f"{__name__}.Kept",))
    assert others == [f"{os.mkdir.__module__}.mkdir"]
    assert found["class_locations"] == {1: [1]}
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"", b"text\n", pickle.dumps(PROPERTIES)[:40]])
def test_what_is_no_pickle_is_refused(tmp_path, content):
    (tmp_path / "case.pkl").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as a pickle"):
        read_pickle(tmp_path / "case.pkl")


def test_random_states_and_devices_of_a_training_are_read(tmp_path):
    states = {"random": random_states(torch.device("cpu")), "device": torch.device("cpu")}
    torch.save(states, tmp_path / "file.pth")
    found = read_checkpoint_file(tmp_path / "file.pth", mapped=False)
    np.testing.assert_equal(found["random"]["numpy"], states["random"]["numpy"])
    assert found["random"]["python"] == states["random"]["python"]
    assert torch.equal(found["random"]["torch"], states["random"]["torch"])


def test_a_full_memory_is_no_fault_of_the_file(tmp_path, monkeypatch):
    torch.save({}, tmp_path / "file.pth")

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(torch.OutOfMemoryError):
        read_checkpoint_file(tmp_path / "file.pth")


READERS = {
    "continue": lambda path: read_checkpoint(str(path), torch.device("cpu"), True),
    "predict": Stored.read,
    "start": lambda path: read_start_file(str(path)),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_checkpoint_that_holds_code_is_refused_wherever_it_is_read(tmp_path, reader):
    """nnU-Net 2.8.1 reads all of them by ``weights_only=False``."""
    torch.save({"current_epoch": 1}, tmp_path / "checkpoint_final.pth")
    torch.save({"x": Harm(tmp_path / "made")}, tmp_path / "checkpoint_latest.pth")
    name = "checkpoint_final.pth" if reader == "continue" else "checkpoint_latest.pth"
    with pytest.raises(UserError, match=r"holds \w+\.mkdir, which is code"):
        READERS[reader](tmp_path / name)
    assert not (tmp_path / "made").exists()


def test_a_checkpoint_that_holds_code_is_not_given_to_nnunet(tmp_path):
    """Beside everything else that does not fit, and before nnU-Net's predictor reads it."""
    (tmp_path / "fold_0").mkdir()
    torch.save({"x": Harm(tmp_path / "made")}, tmp_path / "fold_0" / "final.pth")
    request = Request(str(tmp_path / "none"), str(tmp_path / "out"), tmp_path, (0,), "final.pth")
    with pytest.raises(UserError) as raised:
        request.checked()
    for said in ("mkdir, which is code", "has no plans.json", "none' is not a folder"):
        assert said in str(raised.value)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [{"state_dict": {}}, {"network_weights": {}}, [1]])
def test_a_file_that_is_no_checkpoint_is_not_predicted_with(tmp_path, content):
    torch.save(content, tmp_path / "checkpoint_final.pth")
    with pytest.raises(UserError, match=r"checkpoint_final\.pth: no checkpoint of nnU-Net: no "):
        Stored.read(tmp_path / "checkpoint_final.pth")


def test_there_is_one_place_that_loads():
    package = Path(nnunet_semisup.__file__).parent
    loading = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"torch\.load\(|weights_only=False|pickle\.loads?\(", path.read_text("utf-8"))
    }
    assert loading == {"safe_files.py"}
