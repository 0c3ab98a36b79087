"""Settings of the baseline are refused as those of every other trainer."""

from __future__ import annotations

import sys

import pytest
import torch

from nnunet_semisup.trainers.supervised import nnUNetTrainerSupervised


def test_a_setting_of_another_trainer_ends_the_command_with_code_2(monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_semisup_set", "ema_decay=0.9")
    monkeypatch.setattr(sys, "argv", ["/bin/nnUNetv2_train"])
    with pytest.raises(SystemExit) as exit_info:
        nnUNetTrainerSupervised({}, "3d_fullres", 0, {}, torch.device("cpu"))
    assert exit_info.value.code == 2
    assert "has no hyper-parameter ema_decay" in capsys.readouterr().err
