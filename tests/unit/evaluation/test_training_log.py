"""nnU-Net's log files, in the forms that its versions and restarts give them."""

from __future__ import annotations

import math

import pytest

from nnunet_semisup.evaluation.training_log import read_epochs, seconds_per_step
from tests.unit.benchmark.fake import LOG, epoch_log


def write(folder, name, *epochs):
    (folder / f"training_log_{name}.txt").write_text(LOG.format(epochs="".join(epochs)))


def test_values_of_an_epoch(tmp_path):
    write(tmp_path, "2026_11_28_13_38_35", epoch_log(0, -0.169, -0.3434), epoch_log(1))
    first, second = read_epochs(tmp_path)
    assert (first.number, first.train_loss, first.validation_loss) == (0, -0.169, -0.3434)
    assert (first.pseudo_dice, first.seconds) == (0.527, 12.75)
    assert second.number == 1


@pytest.mark.parametrize(
    ("dice", "mean"),
    [
        ("[np.float32(0.5), np.float32(nan), np.float32(0.7)]", 0.6),
        ("[0.5, nan, 0.7]", 0.6),
        ("[np.float64(1.0), np.float64(0.0)]", 0.5),
        ("[np.float32(1e-04)]", 1e-4),
        ("[np.float32(nan)]", math.nan),
    ],
)
def test_pseudo_dice_of_several_classes(tmp_path, dice, mean):
    """numpy 2 prints the type with the value; a class that no patch had is NaN."""
    write(tmp_path, "2026_11_28_13_38_35", epoch_log(0, dice=dice))
    assert read_epochs(tmp_path)[0].pseudo_dice == pytest.approx(mean, nan_ok=True)


def test_continued_training_replaces_what_it_repeats(tmp_path):
    """nnU-Net (2.8.1) writes months without leading zeros: October's name sorts before 9."""
    write(tmp_path, "2026_9_30_23_00_00", epoch_log(0), epoch_log(1, -0.1), epoch_log(2, -0.2))
    write(tmp_path, "2026_10_1_08_00_00", epoch_log(2, -0.9), epoch_log(3, -1.0))
    assert [(e.number, e.train_loss) for e in read_epochs(tmp_path)] == [
        (0, -0.5),
        (1, -0.1),
        (2, -0.9),
        (3, -1.0),
    ]


def test_epoch_that_was_cut_off_is_none(tmp_path):
    whole, part = epoch_log(0), epoch_log(1)
    write(tmp_path, "2026_11_28_13_38_35", whole, part[: part.index("Pseudo dice")], "\n")
    assert [epoch.number for epoch in read_epochs(tmp_path)] == [0]


def test_diverged_loss_is_no_number(tmp_path):
    write(tmp_path, "2026_11_28_13_38_35", epoch_log(0, loss="inf", val_loss="nan"))
    assert math.isnan(read_epochs(tmp_path)[0].train_loss)


def test_seconds_a_step_are_of_the_median_epoch(tmp_path):
    assert math.isnan(seconds_per_step(tmp_path, 25))
    assert read_epochs(tmp_path) == ()
    times = [epoch_log(n, seconds=s) for n, s in enumerate((50.0, 10.0, 12.0))]
    write(tmp_path, "2026_11_28_13_38_35", *times)
    assert seconds_per_step(tmp_path, 4) == 3.0
