"""Names in the arguments of nnU-Net's planning, classes and configurations, looked up at once."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.plans import CASCADE, DEFAULT_CONFIGURATIONS, DEFAULT_PLANS
from nnunet_semisup.preparation.raw import find_dataset


@dataclass(frozen=True)
class Role:
    """Hold a class's purpose: its name in messages, nnU-Net's subpackage, and its base there."""

    noun: str
    package: str
    module: str
    base: str

    @property
    def base_class(self) -> type:
        """Return nnU-Net's own class, which others extend."""
        found: type = getattr(import_module(f"nnunetv2.{self.package}.{self.module}"), self.base)
        return found


PLANNER = Role(
    "planner",
    "experiment_planning",
    "experiment_planners.default_experiment_planner",
    "ExperimentPlanner",
)
FINGERPRINT_EXTRACTOR = Role(
    "fingerprint extractor",
    "experiment_planning",
    "dataset_fingerprint.fingerprint_extractor",
    "DatasetFingerprintExtractor",
)
PREPROCESSOR = Role(
    "preprocessor",
    "preprocessing",
    "preprocessors.default_preprocessor",
    "DefaultPreprocessor",
)


def find_class(role: Role, name: str) -> type:
    """Return the class that nnU-Net would use under this name.

    Raises:
        UserError: there is none.
    """
    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    folder = Path(nnunetv2.__path__[0], role.package)
    found = recursive_find_python_class(str(folder), name, f"nnunetv2.{role.package}")
    if isinstance(found, type):
        return found
    known = {c.__name__ for c in _family(role.base_class) if c.__module__.startswith("nnunetv2.")}
    raise UserError(_absent(role.noun, name, sorted(known)))


def _family(base: type) -> Iterator[type]:
    """Yield ``base`` and all that extend it, as far as imported, which a failed search did."""
    yield base
    extensions: list[type] = base.__subclasses__()
    for extending in extensions:
        yield from _family(extending)


def _absent(noun: str, name: str, known: Collection[str]) -> str:
    """Say of a name that nothing has which one is most similar, and all that there are."""
    lower = {other.lower(): other for other in known}
    similar = get_close_matches(name.lower(), lower, n=1)
    meant = f"; did you mean {lower[similar[0]]}?" if similar else "."
    return f"There is no {noun} {name}{meant} There are {', '.join(known)}."


def refuse_unknown_configurations(
    configurations: Sequence[str], planner: type, plans_name: str | None, datasets: Sequence[int]
) -> None:
    """Refuse configurations that no plans will have.

    nnU-Net keeps what a user has added to existing plans, so these are allowed, too. A planner that
    does its own planning may make any.

    Args:
        configurations: names as given.
        planner: class that will make the plans.
        plans_name: name of the plans; ``None`` for the planner's own.
        datasets: ids of the data sets.

    Raises:
        UserError: a configuration is in none of the plans.
    """
    method = "plan_experiment"
    if getattr(planner, method, None) is not getattr(PLANNER.base_class, method):
        return
    own = inspect.signature(planner).parameters.get("plans_name")
    name = plans_name or (own.default if own else DEFAULT_PLANS)
    known = list(DEFAULT_CONFIGURATIONS)
    for dataset in datasets:
        known += [added for added in _configurations_there(dataset, name) if added not in known]
    absent = [_absent("configuration", name, known) for name in configurations if name not in known]
    if absent:
        raise UserError("\n".join(absent))


def _configurations_there(dataset: int, plans_name: str) -> list[str]:
    """Return configurations of plans that exist already; none where they cannot be read."""
    try:
        path = find_dataset(dataset).preprocessed / f"{plans_name}.json"
        names = json.loads(path.read_text(encoding="utf-8"))["configurations"]
        return [name for name in names if name != CASCADE]
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return []
