"""What a training says about its settings."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from nnunet_semisup.cli.info import main
from nnunet_semisup.networks import bfloat16
from nnunet_semisup.training.run_record import notes_of_run, oversampling_note
from nnunet_semisup.training.settings import forced_patches


@pytest.mark.parametrize(
    ("batch", "fraction", "forced"),
    [(1, 0.33, 0), (2, 0.25, 0), (2, 0.26, 1), (2, 0.33, 1), (3, 0.33, 1), (12, 0.33, 4)],
)
def test_forced_patches_are_those_of_nnunets_loader(batch, fraction, forced):
    """``oversample_foreground_percent`` of nnU-Net 2.8.1 is a step function."""
    cases = SimpleNamespace(identifiers=["a"])
    labels = SimpleNamespace(all_labels=[0, 1], has_ignore_label=False)
    loader = nnUNetDataLoader(cases, batch, (4, 4, 4), (4, 4, 4), labels, fraction)
    assert np.sum([loader.get_do_oversample(i) for i in range(batch)]) == forced
    assert forced_patches(batch, fraction) == forced


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ((2, 0.33, False), "oversample_foreground_percent=0.33 centres 1 of 2 labeled patches"),
        ((2, 0.25, False), "WARNING: oversample_foreground_percent=0.25 centres 0 of 2 labeled"),
        ((2, 0.25, False), "Above 0.25 it is 1"),
        ((1, 0.33, False), "Above 0.5 it is 1"),
        ((2, 0.0, False), "oversample_foreground_percent=0 centres 0 of 2 labeled patches"),
        ((2, 0.25, True), "with probability 0.25"),
    ],
)
def test_the_log_says_how_many_are_forced(settings, expected):
    note = oversampling_note(*settings)
    assert expected in note
    assert ("WARNING" in note) == (settings in {(2, 0.25, False), (1, 0.33, False)})


@pytest.mark.parametrize("lacks", [False, True])
@pytest.mark.parametrize(("mixed", "device"), [(True, "cpu"), (True, "cuda"), (False, "cpu")])
def test_a_processor_without_bfloat16_is_told(tmp_path, monkeypatch, lacks, mixed, device):
    monkeypatch.setattr(bfloat16, "lacks_instructions", lambda: lacks)
    trainer = SimpleNamespace(
        cpu_bfloat16=mixed,
        device=torch.device(device),
        preprocessed_dataset_folder_base=str(tmp_path),
        fold=0,
        configuration_manager=SimpleNamespace(batch_size=2),
        hyperparameters=lambda: {"oversample_foreground_percent": 0.33},
        probabilistic_oversampling=False,
    )
    told = any("no instructions for bfloat16" in note for note in notes_of_run(trainer))
    assert told == (mixed and device == "cpu" and lacks)


def test_info_says_how_many_are_forced(capsys):
    with pytest.raises(SystemExit):
        main(["nnUNetTrainerPseudoLabel"])
    assert "=0.33 centres 0 of 1, 1 of 2, 1 of 3, 1 of 4" in capsys.readouterr().out
