"""MLflow as one of nnU-Net's loggers: what nnU-Net logs, and the terms and settings of a method.

nnU-Net 2.8.1 has such a logger for W&B, ``nnUNet_wandb_enabled=1``. This one is switched on in the
same way, ``nnUNet_semisup_mlflow_enabled=1``; where it writes is MLflow's own to say, by
``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` (default: the data set's name).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.errors import UserError

ENABLED = "nnUNet_semisup_mlflow_enabled"
RUN_FILE = "mlflow_run.txt"
"""In the fold's folder: the run that ``--c`` and ``--val`` go on with."""
LAST_OF_AN_EPOCH = "epoch_end_timestamps"


def is_enabled() -> bool:
    """Tell whether trainings are followed by MLflow.

    Raises:
        UserError: the variable is neither on nor off, or MLflow is not installed.
    """
    value = os.environ.get(ENABLED, "0")
    if value.lower() not in ("0", "1", "true", "false"):
        raise UserError(f"{ENABLED} is '{value}'. Allowed are 0 and 1.")
    if value.lower() in ("0", "false"):
        return False
    if find_spec("mlflow") is None:
        raise UserError(
            f"{ENABLED}=1, but MLflow is not installed. Install it "
            "(pip install 'nnunet-semisup[mlflow]'), or unset the variable."
        )
    return True


class MlflowLogger:
    """Log to a run of MLflow, as nnU-Net's MetaLogger asks it of a logger.

    Values of an epoch are sent together. Where MLflow fails, the training goes on without it, and
    its log says so.

    Args:
        trainer: whose output folder, records and log are used.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._client: Any = None
        self._run = ""
        self._values: list[tuple[str, float, int]] = []
        self._failed = False

    def update_config(self, config: dict[str, Any]) -> None:
        """Do nothing: the record of the run, which is logged as parameters, has all of it."""

    def log(self, key: str, value: Any, step: int) -> None:
        """Keep a value of an epoch; the last one that nnU-Net logs sends them."""
        self._values.append((key, float(value), step))
        if key == LAST_OF_AN_EPOCH:
            self._send()

    def log_summary(self, key: str, value: Any) -> None:
        """Send a value that stands for the whole training, such as the validation's Dice."""
        self._values.append((key, float(value), 0))
        self._send()

    def finish(self, status: str) -> None:
        """Send what is left and end the run, if one was started.

        Args:
            status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        """
        if self._values:
            self._send()
        if self._run:
            self._try(lambda: self._client.set_terminated(self._run, status))

    def _send(self) -> None:
        values, self._values = self._values, []
        self._try(lambda: self._send_to_run(values))

    def _send_to_run(self, values: list[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        if not self._run:
            self._open()
        now = time.time_ns() // 1_000_000
        self._client.log_batch(self._run, [Metric(name, v, now, step) for name, v, step in values])

    def _try(self, send: Callable[[], None]) -> None:
        """Do it unless MLflow has failed before; a training must not end by what follows it."""
        if self._failed:
            return
        try:
            send()
        except Exception as error:
            self._failed = True
            reason = (str(error).splitlines() or [""])[0][:300]
            self._trainer.print_to_log_file(
                f"WARNING: MLflow gets no more of this training ({type(error).__name__}: {reason})"
            )

    def _open(self) -> None:
        """Go on with the run of a training that is continued, or start one."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        with _one_at_a_time():
            self._client = MlflowClient()
            experiment = self._experiment()
        file = Path(self._trainer.output_folder, RUN_FILE)
        if self._trainer.restored and file.is_file():
            run = file.read_text(encoding="utf-8").strip()
            self._client.update_run(run, status="RUNNING")
            self._run = run
            return
        trainer = self._trainer
        name = f"{type(trainer).__name__}, {trainer.configuration_name}, fold {trainer.fold}"
        self._run = self._client.create_run(experiment, run_name=name).info.run_id
        with atomic_path(file) as temporary:
            temporary.write_text(self._run, encoding="utf-8")
        params = [Param(key, str(value)) for key, value in self._description().items()]
        self._client.log_batch(self._run, params=params)

    def _description(self) -> dict[str, Any]:
        trainer = self._trainer
        record = trainer.configuration()
        return {
            **record.pop("hyperparameters"),
            **record,
            "dataset": trainer.plans_manager.dataset_name,
            "plans": trainer.plans_manager.plans_name,
            "configuration": trainer.configuration_name,
            "fold": trainer.fold,
        }

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", self._trainer.plans_manager.dataset_name)
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))


def follow(trainer: Any) -> None:
    """Let MLflow follow a training if it is switched on; of several ranks the first one."""
    if trainer.local_rank == 0 and is_enabled():
        trainer.logger.loggers.append(MlflowLogger(trainer))


def log_terms(logger: Any, row: dict[str, float]) -> None:
    """Give an epoch's terms to the loggers beside nnU-Net's own, which refuses unknown names.

    Args:
        logger: nnU-Net's MetaLogger.
        row: names and values, ``epoch`` among them.
    """
    for other in logger.loggers:
        for name, value in row.items():
            if name != "epoch":
                other.log(f"terms/{name}", value, int(row["epoch"]))


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let the trainings of a machine open the store one after another.

    MLflow 3.17.2 makes the tables of a new SQLite store without a lock: of three processes that
    opened the same one at once, two ended with 'duplicate column name'.
    """
    from filelock import FileLock

    uri = os.environ.get("MLFLOW_TRACKING_URI", os.getcwd())
    name = f"nnunet_semisup_mlflow_{hashlib.sha256(uri.encode()).hexdigest()[:16]}"
    with FileLock(Path(tempfile.gettempdir(), name)):
        yield
