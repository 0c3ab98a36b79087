"""Refuse rows that could not be trained before any of them is, without preprocessed cases."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from nnunet_semisup.benchmark.design import STOCK_PLANS, Design, Layout, Row, Run
from nnunet_semisup.benchmark.execute import Place, settings_of
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.inserted_plans import insert_into, read_choice
from nnunet_semisup.preparation.plans import single_output_fault
from nnunet_semisup.preparation.raw import bullet_list
from nnunet_semisup.registry import find_method
from nnunet_semisup.training.inputs import Inputs
from nnunet_semisup.training.partial_labels import check_partial_labels
from nnunet_semisup.training.settings import Settings, split_assignments


def check_row_settings(design: Design) -> None:
    """Refuse settings that a trainer does not have, or that are the benchmark's own.

    Raises:
        UserError: naming every such row.
    """
    faults = []
    for row in design.rows:
        try:
            _settings(design, row)
        except UserError as error:
            faults.append(f"{row.title}: {error}")
    _refuse(faults)


def rows_that_train(
    layout: Layout, design: Design, optional: Collection[Row]
) -> tuple[list[Row], list[str]]:
    """Return the rows that can be trained with the plans of the first budget, and why others not.

    Args:
        layout: of the benchmark, whose first budget is planned.
        design: what is compared.
        optional: rows that are left out where they cannot be trained.

    Raises:
        UserError: the plans lack the configuration, or another row cannot be trained.
    """
    plans_file = layout.preprocessed(design, design.budgets[0]) / f"{STOCK_PLANS}.json"
    plans: dict[str, Any] = json.loads(plans_file.read_text(encoding="utf-8"))
    if design.configuration not in (there := plans["configurations"]):
        raise UserError(
            f"{design.dataset} is planned without {design.configuration} (-c). Possible: "
            f"{', '.join(there)}."
        )
    content = json.loads((Path(design.raw) / "dataset.json").read_text(encoding="utf-8"))
    kept: list[Row] = []
    left_out: list[str] = []
    faults: list[str] = []
    for row in design.rows:
        try:
            _check(design, row, plans, content)
        except UserError as error:
            (left_out if row in optional else faults).append(f"{row.title}: {error}")
        else:
            kept.append(row)
    _refuse(faults)
    return kept, left_out


def _settings(design: Design, row: Row) -> tuple[Any, Settings]:
    """Return the row's trainer, still empty, and its checked hyper-parameters."""
    trainer = getattr(import_module("nnunet_semisup.trainers"), row.trainer)
    run = Run(replace(row, settings=""), 0, min(design.seeds))
    ours = settings_of(design, run, Place("cpu", threads=1))
    if both := split_assignments(ours).keys() & split_assignments(row.settings).keys():
        raise UserError(
            f"{', '.join(sorted(both))} is the same for all rows and not a row's to set "
            "(--steps, --steps-per-epoch, --seeds, --bfloat16, --threads)."
        )
    settings = Settings.of(trainer, f"{ours},{row.settings}")
    empty = trainer.__new__(trainer)
    empty.check_settings(settings)
    return empty, settings


def _check(design: Design, row: Row, plans: dict[str, Any], content: dict[str, Any]) -> None:
    """Check what a training checks at its start, but for its cases."""
    empty, settings = _settings(design, row)
    if row.inserts:
        chosen = [read_choice(insert) for insert in row.inserts]
        plans = insert_into(plans, row.plans, chosen, [design.configuration]).plans
    method = find_method(row.trainer)
    rest = (settings, plans, design.configuration, 0, content)
    inputs = Inputs(row.trainer, method, *rest, continues=False, trained=False)
    faults = inputs.unserved()
    if settings.values.get("enable_deep_supervision", True):
        fault = single_output_fault(inputs.plans_manager, design.configuration)
        faults += [fault] if fault else []
    if faults:
        raise UserError("; ".join(faults))
    manager = inputs.plans_manager
    check_partial_labels(design.raw, manager, content, row.trainer, method)
    empty.check_inputs(inputs)


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        raise UserError(f"These rows cannot be trained:\n{bullet_list(faults)}")
