"""What a run is told and tells: hyper-parameters, recorded and taken over, and hidden labels."""

from __future__ import annotations

from os.path import join
from typing import TYPE_CHECKING, Any

from nnunet_semisup.preparation.folds import hidden_by_other_folds
from nnunet_semisup.preparation.layout import SPLITS_FILE, UNLABELED_KEY
from nnunet_semisup.training.hyperparameters import OF_THE_MACHINE, declared, forced_patches

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as _Host
else:
    _Host = object

OVERSAMPLING = "oversample_foreground_percent"


def oversampling_note(batch_size: int, fraction: float, probabilistic: bool) -> str:
    """Return what ``oversample_foreground_percent`` comes to in a batch of the plan's size."""
    if probabilistic:
        return f"Each labeled patch is centred on foreground with probability {fraction:g}"
    forced = forced_patches(batch_size, fraction)
    patches = f"{forced} of {batch_size} labeled patches"
    note = f"{OVERSAMPLING}={fraction:g} centres {patches} on foreground"
    if forced or not fraction:
        return note
    least = 0.5 / batch_size
    return f"WARNING: {note}. Above {least:.3g} it is 1; or set probabilistic_oversampling=True"


class Records(_Host):
    """What every trainer of this package records, the supervised one included."""

    overrides: dict[str, Any]
    """What ``nnUNet_semisup_set`` set."""
    _oversampling: float | None = None

    def _set_batch_size_and_oversample(self) -> None:
        """As nnU-Net, which puts each rank's own share in place of the one that was set."""
        self._oversampling = self.oversample_foreground_percent
        super()._set_batch_size_and_oversample()

    def on_train_start(self) -> None:
        """As nnU-Net; warns where labels are used that the data set's folds hide."""
        super().on_train_start()
        folder = self.preprocessed_dataset_folder_base
        if hidden := hidden_by_other_folds(join(folder, SPLITS_FILE), self.fold):
            self.print_to_log_file(
                f"WARNING: fold {self.fold} is not in {SPLITS_FILE}, whose folds hide labels (key "
                f"'{UNLABELED_KEY}', cases: {len(hidden)}). Here they are used like all others of "
                "imagesTr. Train a fold of the file to keep them hidden."
            )

        self.print_to_log_file(
            oversampling_note(
                self.configuration_manager.batch_size,
                self.hyperparameters()[OVERSAMPLING],
                self.probabilistic_oversampling,
            )
        )

    def hyperparameters(self) -> dict[str, Any]:
        """Name to value, as it was set for all ranks."""
        values = {name: getattr(self, name) for name in declared(type(self))}
        if self._oversampling is not None:
            values[OVERSAMPLING] = self._oversampling
        return values

    def take_over(self, recorded: dict[str, Any]) -> None:
        """Sets what a run was started with, before its network is built.

        What ``nnUNet_semisup_set`` sets anew counts, and is logged; the seed is always the run's.

        Args:
            recorded: what :meth:`hyperparameters` gave; names of other releases are left out.
        """
        known = declared(type(self))
        for name, value in recorded.items():
            if name not in known or name in OF_THE_MACHINE:
                continue
            if name not in self.overrides or name == "seed":
                setattr(self, name, value)
            elif self.overrides[name] != value:
                self.print_to_log_file(f"{name} was {value} and is now {self.overrides[name]}")

    def use_new_weight_decay(self) -> None:
        """Puts a weight decay that is set anew in place of the loaded optimizer's."""
        if "weight_decay" in self.overrides:
            for group in self.optimizer.param_groups:
                group["weight_decay"] = self.weight_decay
