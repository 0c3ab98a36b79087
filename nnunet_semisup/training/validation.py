"""Validation that scores the fold's cases and no others, by a network that never trained on them.

nnU-Net (2.8.1) computes ``validation/summary.json`` over every prediction that lies in the folder,
and validates whatever ``splits_final.json`` says at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed

from nnunet_semisup.errors import UserError, exit_code_two_in_commands
from nnunet_semisup.evaluation.names import REPORT_NAME, VALIDATION_FOLDER
from nnunet_semisup.preparation.layout import SPLITS_FILE

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as _Host
else:
    _Host = object


def set_aside_validation(folder: str, log: Callable[[str], None]) -> None:
    """Rename ``validation`` in a fold's folder, so that none of its predictions is scored again.

    Args:
        folder: the fold's.
        log: told what was renamed.
    """
    _keep(Path(folder, VALIDATION_FOLDER), log)


def _keep(path: Path, log: Callable[[str], None]) -> None:
    """Rename what is there to the first free of ``NAME_previous``, ``NAME_previous_2``, ..."""
    if not path.exists():
        return
    kept, number = path.with_name(f"{path.stem}_previous{path.suffix}"), 2
    while kept.exists():
        kept = path.with_name(f"{path.stem}_previous_{number}{path.suffix}")
        number += 1
    path.replace(kept)
    log(f"An earlier {path.name} is kept as {kept.name}")


class Validation(_Host):
    """Which cases a trainer of this package has trained on, and which ones it validates."""

    _trained_on: Sequence[str] = ()

    def get_tr_and_val_datasets(self) -> Any:
        """As nnU-Net, which calls it to train; the cases go into the checkpoints."""
        datasets = super().get_tr_and_val_datasets()
        self._trained_on = sorted({*self._trained_on, *map(str, datasets[0].identifiers)})
        return datasets

    @exit_code_two_in_commands()
    def do_split(self) -> Any:
        """As nnU-Net, for a network that has not trained on cases of ``val``.

        Raises:
            UserError: it has, by an earlier state of ``splits_final.json``.
        """
        train, val = super().do_split()
        if learned := sorted(set(val) & set(self._trained_on) - set(train)):
            raise UserError(
                f"'val' of fold {self.fold} has cases that this network was trained on: "
                f"{', '.join(learned)}. {SPLITS_FILE} was changed after the training began. Put "
                f"these cases back into 'train' of the fold (it trained on: "
                f"{', '.join(self._trained_on)}), or train anew, without --c and --val."
            )
        return train, val

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """As nnU-Net, in a folder without predictions of cases that are not the fold's."""
        if self.local_rank == 0:
            self._set_aside_others()
        if self.is_ddp:
            torch.distributed.barrier()
        super().perform_actual_validation(save_probabilities)

    def _set_aside_others(self) -> None:
        """Keep what an earlier validation left, where this one would not overwrite it."""
        folder, ending = (
            Path(self.output_folder, VALIDATION_FOLDER),
            self.dataset_json["file_ending"],
        )
        if not folder.is_dir():
            return
        there = {p.name[: -len(ending)] for p in folder.iterdir() if p.name.endswith(ending)}
        if there and not there <= set(self.do_split()[1]):
            set_aside_validation(self.output_folder, self.print_to_log_file)
        # An evaluation of predictions that are about to be replaced.
        _keep(folder / REPORT_NAME, self.print_to_log_file)
