"""What every trainer checks before nnU-Net's constructor makes the first folder."""

from __future__ import annotations

from typing import Any

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_semisup.preparation.environment import check_environment, require_set
from nnunet_semisup.preparation.fold_checks import check_fold
from nnunet_semisup.training.data_streams import is_trained


def check_before_training(
    trainer: str,
    plans: dict[str, Any],
    configuration: str,
    fold: int | str,
    dataset_json: dict[str, Any],
    deep_supervision: bool,
) -> None:
    """Refuse folders, a fold or a plan with which nnU-Net could not train.

    A fold that is already trained is only looked at again by nnU-Net itself (``--val``).

    Args:
        trainer: name of the class.
        plans: as nnU-Net's constructor gets them, like the others.
        configuration: its name.
        fold: number or ``"all"``.
        dataset_json: content of ``dataset.json``.
        deep_supervision: whether the training uses it.

    Raises:
        UserError: see :func:`~nnunet_semisup.preparation.environment.check_environment` and
            :func:`~nnunet_semisup.preparation.fold_checks.check_fold`.
    """
    check_environment()
    require_set("nnUNet_preprocessed", "nnUNet_results")
    if is_trained(trainer, plans, configuration, fold):
        return
    manager = PlansManager({k: v for k, v in plans.items() if k != "continue_training"})
    check_fold(
        f"{nnUNet_preprocessed}/{manager.dataset_name}",
        manager,
        configuration,
        fold,
        dataset_json["file_ending"],
        deep_supervision,
    )
