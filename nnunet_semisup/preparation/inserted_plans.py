"""Copies of plans whose networks have parts inserted, on the same preprocessed data."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_semisup.architectures.insert import find_insert
from nnunet_semisup.architectures.planned_unet import with_insert
from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.plans import is_no_plans
from nnunet_semisup.preparation.raw import bullet_list

_LINKS = ("inherits_from", "previous_stage")
"""What in a configuration names another one."""


class Chosen(NamedTuple):
    """Hold an insert's name and what the user set of it."""

    name: str
    settings: dict[str, str]


class Written(NamedTuple):
    """Hold plans with inserts.

    Attributes:
        plans: their content.
        left_out: why configurations of the plans before are not in them, one text each.
    """

    plans: dict[str, Any]
    left_out: list[str]


def read_choice(text: str) -> Chosen:
    """Read ``name`` or ``name:option=value,option=value``.

    Raises:
        UserError: an unknown name, or text of another form.
    """
    name, _, given = text.partition(":")
    find_insert(name)
    parts = [part.partition("=") for part in given.split(",") if part]
    if not all(key and value for key, _, value in parts):
        raise UserError(f"--insert {text}: write NAME or NAME:OPTION=VALUE,OPTION=VALUE.")
    return Chosen(name, {key: value for key, _, value in parts})


def insert_into(
    plans: Mapping[str, Any], name: str, chosen: Sequence[Chosen], configurations: Sequence[str]
) -> Written:
    """Return a copy of plans that names networks with inserts; all else stays as it is.

    Args:
        plans: content of nnU-Net's plans.
        name: of the copy.
        chosen: inserts, in the order in which they go in.
        configurations: names of those that the copy shall have; empty: all that can be served.

    Raises:
        UserError: an unknown configuration, one that was asked for and cannot be served, or none
            that can.
    """
    before = plans["configurations"]
    if unknown := [each for each in configurations if each not in before]:
        raise UserError(
            f"{plans['plans_name']} has no configuration {', '.join(unknown)}. "
            f"Possible: {', '.join(before)}."
        )
    after, faults = {}, {}
    for each, content in before.items():
        try:
            after[each] = _with_all(content, _patch_size(plans, each), chosen)
        except UserError as error:
            faults[each] = str(error)
    refused = [f"{each}: {faults[each]}" for each in configurations or before if each in faults]
    if refused and (configurations or not any("architecture" in c for c in after.values())):
        raise UserError(f"No plans were written:\n{bullet_list(refused)}")
    if configurations:
        after = {each: content for each, content in after.items() if each in configurations}
    left_out = [f"{each}: {faults[each]}" for each in before if each in faults]
    result = {**copy.deepcopy(dict(plans)), "plans_name": name}
    result["configurations"] = _without_dangling(after)
    lost = [each for each in after if each not in result["configurations"]]
    left_out += [f"{each}: {_needs(before[each])}, which is not in the new plans" for each in lost]
    if not result["configurations"]:
        raise UserError(
            f"No plans were written:\n{bullet_list(left_out)}\nName what is needed with -c, too."
        )
    return Written(result, left_out)


def _needs(content: Mapping[str, Any]) -> str:
    names = [content[link] for link in _LINKS if link in content]
    return f"needs {' and '.join(names)}"


def _patch_size(plans: Mapping[str, Any], name: str) -> Any:
    """Return the patch of a configuration, which may inherit it."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    own = plans["configurations"][name].get("patch_size")
    return own or PlansManager(dict(plans)).get_configuration(name).patch_size


def _with_all(
    content: Mapping[str, Any], patch_size: Any, chosen: Sequence[Chosen]
) -> dict[str, Any]:
    """Return a configuration with all inserts; one that inherits its network, as it is."""
    result = copy.deepcopy(dict(content))
    if "architecture" not in result and "inherits_from" in result:
        return result
    if "architecture" not in result:
        raise UserError(
            "its network is written as nnU-Net did before version 2.3; plan the data set again"
        )
    for insert in chosen:
        changed = {"patch_size": patch_size, "architecture": result["architecture"]}
        result["architecture"] = with_insert(changed, insert.name, insert.settings)
    return result


def _without_dangling(configurations: dict[str, Any]) -> dict[str, Any]:
    """Return configurations without those that need others which are not there."""
    kept = {
        name: content
        for name, content in configurations.items()
        if all(content.get(link, name) in configurations for link in _LINKS)
    }
    if len(kept) < len(configurations):
        return _without_dangling(kept)
    for content in kept.values():
        if content.get("next_stage", None) not in kept:
            content.pop("next_stage", None)
    return kept


def write_inserted_plans(
    folder: Path, source: str, name: str, chosen: Sequence[Chosen], configurations: Sequence[str]
) -> Written:
    """Write plans with inserts beside those that they are a copy of.

    Args:
        folder: of the data set in ``nnUNet_preprocessed``.
        source: name of plans there.
        name: of the copy.
        chosen: inserts.
        configurations: see :func:`insert_into`.

    Raises:
        UserError: see :func:`insert_into`; or ``name`` is no name for plans or is taken, or the
            folder cannot be written to. Nothing is written then.
    """
    if not name.replace("_", "a").replace("-", "a").isalnum() or "__" in name:
        raise UserError(
            f"-o {name!r} is no name for plans: letters, digits, '-' and single '_', as nnU-Net "
            "makes results folders of it (TRAINER__PLANS__CONFIGURATION)."
        )
    target = folder / f"{name}.json"
    if is_no_plans(target.name):
        raise UserError(
            f"-o {name}: {target.name} is another file of nnU-Net's. Name it otherwise."
        )
    if target.exists():
        raise UserError(f"{target} exists and is not overwritten. Give another name with -o.")
    plans = json.loads((folder / f"{source}.json").read_text(encoding="utf-8"))
    written = insert_into(plans, name, chosen, configurations)
    try:
        with atomic_path(target) as temporary:
            temporary.write_text(json.dumps(written.plans, indent=4), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}.") from error
    return written
