"""A training that is followed by MLflow: one run, with what nnU-Net and the method logged."""

from __future__ import annotations

import mlflow
import pytest
from mlflow import MlflowClient

from nnunet_semisup.errors import UserError
from nnunet_semisup.registry import find_method
from nnunet_semisup.training import mlflow_logger
from nnunet_semisup.training.mlflow_logger import ENABLED, RUN_FILE

PSEUDO_LABEL, SUPERVISED = (
    find_method(f"nnUNetTrainer{name}") for name in ("PseudoLabel", "Supervised")
)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def the_run(database, monkeypatch, request):
    """Switch MLflow on; return what finds the one run of the test."""
    monkeypatch.setenv(ENABLED, "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(None)

    def find():
        client = MlflowClient(database)
        experiment = client.get_experiment_by_name(request.node.name)
        (run,) = client.search_runs([experiment.experiment_id])
        return client, run

    return find


def test_a_run_has_settings_curves_and_terms_and_goes_on(build, the_run):
    trainer = build(PSEUDO_LABEL, "labels2d", start=False, num_epochs=1)
    trainer.run_training()
    client, run = the_run()
    assert run.info.status == "FINISHED"
    assert run.data.params["trainer"] == "nnUNetTrainerPseudoLabel"
    assert run.data.params["initial_lr"] == str(trainer.initial_lr)
    logged = trainer.logger.get_value("train_losses", 0)
    assert run.data.metrics["train_losses"] == pytest.approx(logged)
    last = trainer.monitor.rows[-1]
    terms = {name: value for name, value in last.items() if name != "epoch"}
    assert {k: run.data.metrics[f"terms/{k}"] for k in terms} == pytest.approx(terms, nan_ok=True)

    again = build(PSEUDO_LABEL, "labels2d", start=False, num_epochs=2)
    again.output_folder = trainer.output_folder
    again.continues = True
    again.load_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
    again.run_training()
    again.logger.log_summary("final_val/foreground_dice", 0.5)
    _, same = the_run()
    assert same.info.run_id == run.info.run_id
    assert same.data.metrics["final_val/foreground_dice"] == 0.5
    steps = [m.step for m in client.get_metric_history(run.info.run_id, "train_losses")]
    assert steps == [0, 1]


def test_a_store_that_cannot_be_reached_ends_no_training(build, the_run, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    trainer = build(SUPERVISED, "labels2d", start=False, num_epochs=2)
    trainer.run_training()
    said = capsys.readouterr().out
    assert said.count("MLflow gets no more of this training (") == 1
    assert len(trainer.logger.get_value("train_losses", None)) == 2


def test_a_training_that_fails_is_a_failed_run(build, the_run, monkeypatch):
    trainer = build(SUPERVISED, "labels2d", start=False, num_epochs=2)
    ended = trainer.on_epoch_end

    def fail():
        ended()
        raise RuntimeError("no more disk")

    monkeypatch.setattr(trainer, "on_epoch_end", fail)
    with pytest.raises(RuntimeError, match="no more disk"):
        trainer.run_training()
    assert the_run()[1].info.status == "FAILED"


def test_what_cannot_be_had_is_told_before_anything_is_written(build, monkeypatch, tmp_path):
    monkeypatch.setenv(ENABLED, "yes")
    with pytest.raises(UserError, match="Allowed are 0 and 1"):
        build(SUPERVISED, "labels2d", start=False)
    monkeypatch.setenv(ENABLED, "1")
    monkeypatch.setattr(mlflow_logger, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'nnunet-semisup\[mlflow\]'"):
        build(SUPERVISED, "labels2d", start=False)
    assert not list(tmp_path.rglob(RUN_FILE))
    assert not list(tmp_path.rglob("training_log*"))
