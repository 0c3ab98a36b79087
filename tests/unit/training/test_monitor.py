from __future__ import annotations

import csv

import matplotlib.image
import numpy as np
import pytest
import torch

from nnunet_semisup.training.monitor import CSV_NAME, PLOT_NAME, Monitor

CPU = torch.device("cpu")


def read_csv(folder):
    with open(folder / CSV_NAME, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_are_means_of_the_epoch():
    monitor = Monitor()
    for value in (1.0, 2.0, 6.0):
        monitor.add({"loss": torch.tensor(value), "rate": 2 * value})
    monitor.add({"late": 5.0})
    row = monitor.finish_epoch(0, {"extra": 0.5})
    assert row == {"epoch": 0, "loss": 3.0, "rate": 6.0, "late": 5.0, "extra": 0.5}
    monitor.add({"loss": 10.0})
    assert monitor.finish_epoch(1) == {"epoch": 1, "loss": 10.0}
    assert [r["epoch"] for r in monitor.rows] == [0, 1]


def test_does_not_keep_the_graph_or_the_tensor():
    value = torch.tensor(1.0, requires_grad=True)
    monitor = Monitor()
    monitor.add({"loss": 2 * value})
    shared = torch.tensor(3.0)
    monitor.add({"other": shared})
    shared.fill_(100.0)
    assert not monitor._sums["loss"].requires_grad
    assert monitor.finish_epoch(0)["other"] == 3.0


def test_an_epoch_done_again_replaces_its_row_and_later_ones():
    monitor = Monitor()
    for epoch in range(3):
        monitor.add({"loss": float(epoch)})
        monitor.finish_epoch(epoch)
    monitor.add({"loss": 9.0})
    monitor.finish_epoch(1)
    assert [(r["epoch"], r["loss"]) for r in monitor.rows] == [(0, 0.0), (1, 9.0)]


def test_state_round_trip_in_the_middle_of_an_epoch(tmp_path):
    monitor, whole = Monitor(), Monitor()
    for m in (monitor, whole):
        m.add({"loss": 4.0})
        m.finish_epoch(0)
        m.add({"loss": 1.0, "rare": 7.0})
    torch.save(monitor.state_dict(), tmp_path / "state")
    restored = Monitor()
    restored.load_state_dict(torch.load(tmp_path / "state"), CPU)
    for m in (restored, whole):
        m.add({"loss": 2.0})
        m.finish_epoch(1)
    assert (
        restored.rows
        == whole.rows
        == [
            {"epoch": 0, "loss": 4.0},
            {"epoch": 1, "loss": 1.5, "rare": 7.0},
        ]
    )


def test_files(tmp_path):
    monitor = Monitor()
    for epoch in range(4):
        values = {"loss": 1.0 / (epoch + 1), "small_term": 1.23456789e-7}
        monitor.add({**values, "sometimes": 2.0} if epoch == 2 else values)
        monitor.finish_epoch(epoch)
    monitor.write(str(tmp_path))
    rows = read_csv(tmp_path)
    assert [r["epoch"] for r in rows] == ["0", "1", "2", "3"]
    assert float(rows[3]["loss"]) == pytest.approx(0.25)
    assert float(rows[0]["small_term"]) == pytest.approx(1.23456789e-7, rel=1e-5)
    assert [r["sometimes"] for r in rows] == ["", "", "2", ""]
    assert matplotlib.image.imread(tmp_path / PLOT_NAME).std() > 0.01
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([CSV_NAME, PLOT_NAME])


def test_not_a_number_is_written_and_drawn(tmp_path):
    monitor = Monitor()
    monitor.add({"loss": float("nan")})
    monitor.finish_epoch(0)
    monitor.write(str(tmp_path))
    assert np.isnan(float(read_csv(tmp_path)[0]["loss"]))


def test_nothing_is_written_before_the_first_epoch(tmp_path):
    Monitor().write(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
