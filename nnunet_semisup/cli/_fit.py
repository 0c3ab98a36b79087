"""Say with which settings trainers fit a GPU, in the commands that plan."""

from __future__ import annotations

import json
from collections.abc import Sequence

from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.raw import DatasetFolders

FIT = (
    "say with how many unlabeled patches a step, and with activations recomputed or not, each "
    "trainer fits a GPU with this many GiB, by an estimate of its memory"
)


def refuse_no_memory(gigabytes: float) -> None:
    """Refuse a GPU without memory.

    Raises:
        UserError: the number is not positive.
    """
    if not gigabytes > 0:
        raise UserError(f"--fit {gigabytes:g}: give the GPU's memory in GiB, more than 0.")


def print_fit(
    folders: DatasetFolders,
    plans_identifier: str,
    configurations: Sequence[str],
    gigabytes: float,
    trainers: Sequence[str] = (),
) -> None:
    """Print which settings fit, configuration by configuration, trainer by trainer.

    Args:
        folders: of the data set.
        plans_identifier: name of the plans.
        configurations: names; none: all that unlabeled cases can be trained with.
        gigabytes: of the GPU, in GiB.
        trainers: their names; none: all that can be estimated.

    Raises:
        UserError: no such plans, configuration or trainer, or no memory.
    """
    from nnunet_semisup.preparation.plans import choose_configurations, load_plans
    from nnunet_semisup.training.fit import fit_lines

    refuse_no_memory(gigabytes)
    plans = load_plans(folders, plans_identifier)
    possible = [
        name
        for name in plans.available_configurations
        if not plans.get_configuration(name).previous_stage_name
    ]
    chosen = choose_configurations(plans, configurations or possible, plans_identifier)
    file = folders.preprocessed / "dataset.json"
    dataset_json = json.loads(file.read_text(encoding="utf-8"))
    for line in fit_lines(plans, chosen, dataset_json, gigabytes, trainers):
        print(line, flush=True)
