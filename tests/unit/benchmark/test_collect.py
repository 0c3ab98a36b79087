"""What is not there, or does not fit, is told and stops nothing."""

from __future__ import annotations

import json

import pytest

from nnunet_semisup.benchmark.collect import collect
from nnunet_semisup.errors import UserError
from tests.unit.benchmark.fake import BASELINE, BETTER, LONGER, WORSE, Fake


def test_what_a_finished_run_left(tmp_path):
    fake = Fake(tmp_path, rows=(BASELINE, LONGER)).finish_all()
    benchmark = collect(tmp_path)
    short, long = benchmark.results
    assert [epoch.number for epoch in short.epochs] == [0, 1, 2, 3]
    assert len(long.epochs) == 8
    assert short.epochs[2].train_loss == pytest.approx(-0.2)
    assert short.seconds_per_step == pytest.approx(0.5)
    assert (short.operations, long.operations) == (40.0, 80.0)
    assert (benchmark.classes, benchmark.unit) == (("organ",), "mm")
    assert benchmark.unlabeled(2) == 4 + 1 + 1  # rest of the pool, the design's, imagesUn's own
    assert not benchmark.missing
    assert fake.design == benchmark.design


def test_runs_without_a_result_are_told_apart(tmp_path):
    fake = Fake(tmp_path)
    fake.finish(fake.run(BASELINE))
    fake.fail(fake.run(WORSE), "the data set is broken")
    benchmark = collect(tmp_path)
    states = {run.row: record.status for run, record in benchmark.missing.items()}
    assert states == {BETTER: "waiting", WORSE: "failed", LONGER: "waiting"}
    assert benchmark.in_progress
    assert benchmark.rows(2) == [BASELINE]


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda fake, run: fake.layout.evaluation(run).unlink(), "cannot be read"),
        (lambda fake, run: _without_case(fake.layout.evaluation(run)), "not of the same cases"),
        (lambda fake, run: _replace_prediction(fake, run), "replaced since: test_0"),
    ],
)
def test_results_that_cannot_be_compared_count_as_failed(tmp_path, damage, fault):
    fake = Fake(tmp_path, rows=(BASELINE, BETTER)).finish_all()
    damage(fake, fake.run(BETTER))
    benchmark = collect(tmp_path)
    assert [result.run.row for result in benchmark.results] == [BASELINE]
    (record,) = benchmark.missing.values()
    assert record.status == "failed"
    assert fault in record.fault


def _without_case(path):
    content = json.loads(path.read_text())
    del content["cases"]["test_3"]
    path.write_text(json.dumps(content))


def _replace_prediction(fake, run):
    validation = fake.layout.fold(fake.design, run) / "validation"
    (validation / "test_0.nii.gz").write_bytes((validation / "test_1.nii.gz").read_bytes())


def test_leak_checks_are_read_where_there_are_any(tmp_path):
    fake = Fake(tmp_path)
    assert collect(tmp_path).leaks is None
    (fake.layout.folder / "leaks.json").write_text('["No case has two roles."]')
    assert collect(tmp_path).leaks == ("No case has two roles.",)


def test_folder_without_a_benchmark_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no benchmark"):
        collect(tmp_path)
