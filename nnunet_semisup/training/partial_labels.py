"""Cases with labels of some classes only, in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nnunet_semisup.errors import UserError
from nnunet_semisup.losses.partial import Gaps, gaps_of
from nnunet_semisup.method import Method
from nnunet_semisup.preparation.labeled_classes import (
    LabeledClasses,
    class_names,
    find_labeled_classes,
    read_labeled_classes,
)
from nnunet_semisup.preparation.layout import LABELED_CLASSES_FILE


@dataclass(frozen=True)
class PartialLabels:
    """Say which outputs of the network a case has labels of.

    Attributes:
        labeled: classes by case, of those that lack some.
        dataset_json: of the data set.
        regions: outputs are overlapping regions.
    """

    labeled: LabeledClasses
    dataset_json: dict[str, Any]
    regions: bool
    _rows: dict[str, Tensor] = field(default_factory=dict)

    def gaps(self, cases: Sequence[str], target: Any, device: torch.device) -> Gaps:
        """Return what nnU-Net's target of some cases' patches leaves open.

        Args:
            cases: of the patches.
            target: of them, a list under deep supervision.
            device: of the training.
        """
        rows = torch.stack([self._row(str(case)) for case in cases])
        return gaps_of(target, rows.to(device, non_blocking=True), self.regions)

    def _row(self, case: str) -> Tensor:
        if case not in self._rows:
            names = class_names(self.dataset_json)
            known = [case not in self.labeled or name in self.labeled[case] for name in names]
            self._rows[case] = torch.tensor(known if self.regions else [True, *known])
        return self._rows[case]


def read_partial_labels(
    folder: str, plans: Any, dataset_json: dict[str, Any]
) -> PartialLabels | None:
    """Return the partial labels of a data set; ``None`` where every case has all classes.

    Args:
        folder: preprocessed one of the data set.
        plans: nnU-Net's manager of its plans.
        dataset_json: of the data set.

    Raises:
        UserError: see :func:`read_labeled_classes`.
    """
    file = find_labeled_classes(folder, plans.dataset_name)
    if file is None:
        return None
    names = set(class_names(dataset_json))
    labeled = read_labeled_classes(file, dataset_json)
    lacking = {case: classes for case, classes in labeled.items() if names - set(classes)}
    regions = bool(plans.get_label_manager(dataset_json).has_regions)
    return PartialLabels(lacking, dataset_json, regions) if lacking else None


def partial_labels_of(trainer: Any) -> PartialLabels | None:
    """Return the partial labels of the data set that a trainer trains on."""
    return read_partial_labels(
        trainer.preprocessed_dataset_folder_base, trainer.plans_manager, trainer.dataset_json
    )


def check_partial_labels(
    folder: str, plans: Any, dataset_json: dict[str, Any], trainer: str, method: Method | None
) -> None:
    """Refuse a data set with partial labels for a trainer that would take them for whole ones.

    Args:
        folder, plans, dataset_json: as of :func:`read_partial_labels`.
        trainer: name of the class.
        method: its row of the registry.

    Raises:
        UserError: the file cannot be used, or the trainer cannot use it.
    """
    found = read_partial_labels(folder, plans, dataset_json)
    can = method is not None and (method.has_teacher or not method.uses_unlabeled)
    if found is not None and not can:
        raise UserError(
            f"{trainer} would take classes that were not annotated for background: cases of "
            f"{plans.dataset_name} have some classes only ({LABELED_CLASSES_FILE}). Take "
            "nnUNetTrainerSupervised or a trainer with a teacher, such as "
            "nnUNetTrainerPseudoLabel."
        )
