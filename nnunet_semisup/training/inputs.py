"""Start of a training, checked before nnU-Net's constructor makes the first folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from os.path import isfile, join
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_semisup.method import CLASSES, IGNORE_LABEL, REGIONS, Method
from nnunet_semisup.preparation.device import require_device
from nnunet_semisup.preparation.environment import check_environment, require_set
from nnunet_semisup.preparation.fold_checks import check_fold
from nnunet_semisup.registry import method_of
from nnunet_semisup.training.mlflow_logger import is_enabled
from nnunet_semisup.training.partial_labels import check_partial_labels
from nnunet_semisup.training.ranks import refuse_unfit_processes
from nnunet_semisup.training.settings import Settings, read_recorded


def fold_folder(trainer: str, plans: dict[str, Any], configuration: str, fold: int | str) -> str:
    """Return the folder where nnU-Net puts a training's results; empty without ``nnUNet_results``.

    Args:
        trainer: name of the class.
        plans: as nnU-Net's constructor gets them, like the others.
        configuration: its name.
        fold: number or ``"all"``.
    """
    if not nnUNet_results.is_set():
        return ""
    name = f"{trainer}__{plans['plans_name']}__{configuration}"
    return join(str(nnUNet_results), plans["dataset_name"], name, f"fold_{fold}")


@dataclass(frozen=True)
class Inputs:
    """Hold what nnU-Net's constructor gets, and the hyper-parameters.

    Attributes:
        trainer: name of the class.
        method: the registry's row of the class or of a base; ``None`` for a user's own.
        settings: hyper-parameters, those of the run before where it is continued.
        plans: content of the plans.
        configuration: its name.
        fold: number or ``"all"``.
        dataset_json: content of ``dataset.json``.
        continues: whether a run is continued (``--c``).
        trained: whether a training has finished in the fold's folder.
    """

    trainer: str
    method: Method | None
    settings: Settings
    plans: dict[str, Any]
    configuration: str
    fold: int | str
    dataset_json: dict[str, Any]
    continues: bool
    trained: bool

    @classmethod
    def of(
        cls,
        trainer: type,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
    ) -> Inputs:
        """Read the hyper-parameters and look where the run stands.

        Raises:
            UserError: unknown, unreadable or impossible hyper-parameters, or folders of nnU-Net
                that are not set or cannot be used.
        """
        settings = Settings.of(trainer)
        check_environment()
        require_set("nnUNet_preprocessed", "nnUNet_results")
        folder = fold_folder(trainer.__name__, plans, configuration, fold)
        continues = bool(plans.get("continue_training"))
        if continues:
            settings = settings.continuing(read_recorded(folder))
        trained = bool(folder) and isfile(join(folder, "checkpoint_final.pth"))
        content = {key: value for key, value in plans.items() if key != "continue_training"}
        return cls(
            trainer.__name__,
            method_of(trainer),
            settings,
            content,
            configuration,
            fold,
            dataset_json,
            continues,
            trained,
        )

    @property
    def validates_only(self) -> bool:
        """Tell whether a finished training is, most likely, only looked at again (``--val``).

        A training that starts anew in its folder looks the same; it meets its checks later.
        """
        return self.trained and not self.continues

    @cached_property
    def plans_manager(self) -> PlansManager:
        """The plans."""
        return PlansManager(self.plans)

    @property
    def configuration_manager(self) -> ConfigurationManager:
        """The configuration of the plans."""
        return self.plans_manager.get_configuration(self.configuration)

    @property
    def dataset_folder(self) -> str:
        """The data set's folder in ``nnUNet_preprocessed``."""
        return join(str(nnUNet_preprocessed), self.plans["dataset_name"])

    def unserved(self) -> list[str]:
        """Return what of the plan and its labels the trainer's row does not list, and a remedy."""
        if self.method is None:
            return []
        faults = []
        dims, given = self.method.dims, len(self.configuration_manager.patch_size)
        if given not in dims:
            fit = [
                name
                for name in self.plans_manager.available_configurations
                if len(self.plans_manager.get_configuration(name).patch_size) in dims
            ]
            faults.append(
                f"{self.method.trainer} trains in {' and '.join(f'{d}D' for d in dims)}, and the "
                f"patches of {self.configuration} have {given} dimensions; in these plans it can "
                f"train {', '.join(fit) or 'nothing'}"
            )
        labels = self.plans_manager.get_label_manager(self.dataset_json)
        kinds = [REGIONS if labels.has_regions else CLASSES]
        kinds += [IGNORE_LABEL] if labels.has_ignore_label else []
        faults += [
            f"{self.method.trainer} trains with {', '.join(self.method.labels)}, and dataset.json "
            f"has {kind}; take another trainer (nnUNetv2_semisup_info lists them)"
            for kind in kinds
            if kind not in self.method.labels
        ]
        return faults

    def check(self, device: str) -> None:
        """Refuse a fold or a plan with which nnU-Net, or the method, could not train.

        A fold that is already trained is only looked at again by nnU-Net itself (``--val``).

        Args:
            device: type of the one that was given.

        Raises:
            UserError: see :func:`~nnunet_semisup.preparation.fold_checks.check_fold`; also a
                tracker that cannot be had, a GPU that is not there, and processes that cannot share
                the training.
        """
        require_device(device)
        is_enabled()
        batch_size = self.configuration_manager.batch_size
        refuse_unfit_processes(self.configuration, batch_size)
        if self.validates_only:
            return
        check_partial_labels(
            *(self.dataset_folder, self.plans_manager, self.dataset_json),
            *(self.trainer, self.method),
        )
        check_fold(
            self.dataset_folder,
            self.plans_manager,
            self.configuration,
            self.fold,
            self.dataset_json["file_ending"],
            self.settings.values.get("enable_deep_supervision", True),
            self.unserved(),
        )
