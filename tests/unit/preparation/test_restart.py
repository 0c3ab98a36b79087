import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.lock import exclusive_lock
from nnunet_semisup.preparation.preprocessing import check_before_preprocessing, preprocess_checked
from tests.helpers import write_image
from tests.unit.preparation.shared import IDS, check, folder_of, run, stamp_of


def test_second_run_changes_nothing(planned, preprocessed_ids):
    run()
    before = planned.snapshot()
    preprocessed_ids.clear()
    assert run() == {"3d_fullres": IDS}
    assert preprocessed_ids == []
    assert planned.snapshot() == before


def test_touched_file_is_recognised_by_its_content(planned, preprocessed_ids):
    run()
    preprocessed_ids.clear()
    os.utime(planned.images / "unl_000_0000.nii.gz", (1, 1))
    run()
    assert preprocessed_ids == []
    sources = json.loads(stamp_of(planned).read_text(encoding="utf-8"))["cases"]["unl_000"]
    assert sources[0]["mtime_ns"] == 10**9


def test_changed_added_and_removed_cases(planned, preprocessed_ids):
    run()
    preprocessed_ids.clear()
    old = nnUNetDatasetBlosc2(str(folder_of(planned))).load_case("unl_000")[0][:]
    for channel in range(2):
        name = f"_{channel:04d}.nii.gz"
        array = np.random.default_rng(channel).random((16, 20, 18))
        write_image(planned.images / f"unl_000{name}", array, (2.0, 1.0, 1.0))
        shutil.copy(planned.images / f"unl_001{name}", planned.images / f"new{name}")
        (planned.images / f"unl_002{name}").unlink()
    assert run() == {"3d_fullres": ["new", "unl_000", "unl_001"]}
    assert sorted(preprocessed_ids) == ["new", "unl_000"]
    assert check(planned) == ["new", "unl_000", "unl_001"]
    assert not list(folder_of(planned).glob("unl_002*"))
    new = nnUNetDatasetBlosc2(str(folder_of(planned))).load_case("unl_000")[0][:]
    assert not np.array_equal(old, new)


def test_lost_image_is_noticed_by_a_training(planned):
    run()
    (folder_of(planned) / "unl_001.b2nd").unlink()
    with pytest.raises(UserError, match="files are missing") as caught:
        check(planned)
    assert "unl_001" in str(caught.value)
    assert "nnUNetv2_semisup_preprocess -d 501 -c 3d_fullres" in str(caught.value)


@pytest.mark.parametrize("suffix", ["_seg.b2nd", ".pkl"])
def test_training_needs_the_image_alone(planned, suffix):
    run()
    (folder_of(planned) / f"unl_001{suffix}").unlink()
    assert check(planned) == IDS


@pytest.mark.parametrize("suffix", [".b2nd", "_seg.b2nd", ".pkl"])
def test_lost_file_is_made_again(planned, preprocessed_ids, suffix):
    run()
    preprocessed_ids.clear()
    (folder_of(planned) / f"unl_001{suffix}").unlink()
    run()
    assert preprocessed_ids == ["unl_001"]
    assert check(planned) == IDS


class _Killed(BaseException):
    """Like a signal: no handler for errors catches it."""


@pytest.mark.parametrize("moved", range(1, 9))
def test_interrupted_between_any_two_moves(planned, monkeypatch, preprocessed_ids, moved):
    replace = os.replace
    moves = []

    def interrupted(source, target):
        if str(target).endswith((".b2nd", ".pkl")):
            if len(moves) == moved:
                raise _Killed
            moves.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(_Killed):
            run()
    with pytest.raises(UserError, match="preprocessing was interrupted"):
        check(planned)
    preprocessed_ids.clear()
    run()
    assert preprocessed_ids == IDS[moved // 3 :]
    assert check(planned) == IDS
    assert len(list(folder_of(planned).iterdir())) == 9
    assert not list(planned.preprocessed.glob("*partial"))


def test_failing_case_is_named_and_finished_cases_are_kept(planned, monkeypatch, preprocessed_ids):
    recorded = DefaultPreprocessor.run_case_save

    def fail(self, output, *args):
        if output.endswith("unl_001"):
            raise MemoryError("no memory")
        return recorded(self, output, *args)

    with monkeypatch.context() as patch:
        patch.setattr(DefaultPreprocessor, "run_case_save", fail)
        with pytest.raises(RuntimeError, match="case unl_001 failed: MemoryError"):
            run()
    preprocessed_ids.clear()
    run()
    assert preprocessed_ids == ["unl_001", "unl_002"]
    assert check(planned) == IDS


def test_preprocessor_that_writes_no_case_is_refused(planned, monkeypatch):
    monkeypatch.setattr(DefaultPreprocessor, "run_case_save", lambda *_: None)
    with pytest.raises(RuntimeError, match=r"ImagesOnly wrote \[\]"):
        run()


def test_image_that_changes_during_preprocessing_is_not_taken(planned, monkeypatch):
    original = DefaultPreprocessor.run_case_save

    def change(self, output, images, *args):
        original(self, output, images, *args)
        os.utime(images[0], (1, 1))

    with monkeypatch.context() as patch:
        patch.setattr(DefaultPreprocessor, "run_case_save", change)
        with pytest.raises(RuntimeError, match="changed while"):
            run()
    assert not list(folder_of(planned).iterdir())


KILLED_RUN = """
import time
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunet_semisup.preparation.preprocessing import preprocess_unlabeled
original = DefaultPreprocessor.run_case_save
def slow(self, output, *args):
    original(self, output, *args)
    if output.endswith("unl_001"):
        print("reached", flush=True)
        time.sleep(60)
DefaultPreprocessor.run_case_save = slow
preprocess_unlabeled(501, ["3d_fullres"], num_processes=[0], show_progress=False)
"""


def test_sigkill_leaves_a_folder_that_the_next_run_completes(planned, preprocessed_ids):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_RUN], stdout=subprocess.PIPE, encoding="utf-8"
    )
    deadline = time.monotonic() + 100
    while "reached" not in process.stdout.readline() and time.monotonic() < deadline:
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert {p.name.split(".")[0] for p in folder_of(planned).glob("*.pkl")} == {"unl_000"}
    with pytest.raises(UserError, match="interrupted"):
        check(planned)
    run()
    assert preprocessed_ids == ["unl_001", "unl_002"]
    assert check(planned) == IDS
    assert not list(planned.preprocessed.glob("*partial"))


def test_two_commands_do_not_work_in_one_folder(planned):
    with exclusive_lock(folder_of(planned)):
        before = planned.snapshot()
        with pytest.raises(UserError, match="Another command is writing to") as caught:
            run()
        assert planned.snapshot() == before
        assert str(folder_of(planned)) in str(caught.value)
    assert run() == {"3d_fullres": IDS}
    assert not list(planned.preprocessed.glob("*.lock"))


def test_a_lock_file_that_cannot_be_removed_is_released(planned, monkeypatch):
    """Windows removes no file that is open."""

    def refuse(path, missing_ok=False):
        raise PermissionError(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with exclusive_lock(folder_of(planned)):
            pass
    with exclusive_lock(folder_of(planned)):
        pass


def test_what_another_command_made_meanwhile_is_kept(planned, preprocessed_ids):
    checked = check_before_preprocessing(
        501, ["3d_fullres"], num_processes=[0], show_progress=False
    )
    run()
    assert preprocessed_ids == IDS
    preprocess_checked(checked, show_progress=False)
    assert preprocessed_ids == IDS
