"""``make demo`` in small: stock commands on a phantom, a report, and nothing twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.workspace import TIMEOUT, base_environment

TRAINERS = ("nnUNetTrainerSupervised", "nnUNetTrainerPseudoLabel")
SMALL = ("--steps", "4", "--steps-per-epoch", "2")
CASES = ("--cases", "2", "3", "2", "--device", "cpu")


def demo(root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Runs the demo into ``root/demo``; the user's own nnU-Net folders are those below ``root``."""
    return subprocess.run(
        [sys.executable, "-m", "nnunet_semisup.demo", "--output", str(root / "demo")]
        + [*SMALL, *CASES, *more],
        env=base_environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=3 * TIMEOUT,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a finished demo, and what it printed."""
    root = tmp_path_factory.mktemp("user")
    done = demo(root)
    assert done.returncode == 0, done.stdout
    return root, done.stdout


def test_report_lies_where_the_last_line_says(finished):
    root, printed = finished
    report = Path(printed.splitlines()[-1].removeprefix("Report: "))
    assert report == root / "demo" / "report" / "index.html"
    text = report.read_text(encoding="utf-8")
    for trainer in TRAINERS:
        assert trainer in text
    for caption in ("progress.png", "semisup_progress.png"):
        assert caption in text
    assert text.count("data:image/png;base64,") == 6


def test_every_command_is_shown_as_typed(finished):
    _, printed = finished
    for command in (
        "nnUNetv2_semisup_plan_and_preprocess -d 900 -c 2d",
        *(f"nnUNetv2_train 900 2d all -tr {trainer} -device cpu" for trainer in TRAINERS),
        "nnUNetv2_predict -d 900",
        "nnUNetv2_semisup_evaluate",
    ):
        assert command in printed


def test_the_users_own_folders_stay_empty(finished):
    root, _ = finished
    assert [path.name for path in root.iterdir()] == ["demo"]


def test_a_finished_demo_only_writes_its_report_again(finished):
    root, printed = finished
    again = demo(root)
    assert again.returncode == 0
    assert "$ " not in again.stdout
    table = [line for line in printed.splitlines() if line.startswith(TRAINERS)][-len(TRAINERS) :]
    assert [line for line in again.stdout.splitlines() if line.startswith(TRAINERS)] == table


def test_a_third_trainer_can_be_added_to_a_finished_demo(finished):
    root, _ = finished
    more = demo(root, "--trainers", *TRAINERS, "nnUNetTrainerVQSeg")
    assert more.returncode == 0, more.stdout
    trained = [line for line in more.stdout.splitlines() if "nnUNetv2_train " in line]
    assert [line.split("-tr ")[1].split()[0] for line in trained] == ["nnUNetTrainerVQSeg"]
    text = (root / "demo" / "report" / "index.html").read_text(encoding="utf-8")
    for word in (*TRAINERS, "nnUNetTrainerVQSeg", "semisup_codebook.png"):
        assert word in text


def test_other_settings_for_the_same_folder_are_refused(finished):
    root, _ = finished
    refused = demo(root, "--seed", "1")
    assert refused.returncode == 2
    assert "other settings (seed 0, not 1)" in refused.stdout
