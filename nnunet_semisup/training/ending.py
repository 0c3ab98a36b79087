"""End of a training, however it comes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nnunet_semisup.training.mlflow_logger import MlflowLogger


@contextmanager
def ending(trainer: Any) -> Iterator[None]:
    """Tell MLflow how a training ended; where it failed, end the workers that nobody waits for."""
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except BaseException as error:
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            status = "KILLED"
        trainer.stop_workers()
        raise
    finally:
        for logger in trainer.logger.loggers:
            if isinstance(logger, MlflowLogger):
                logger.finish(status)
