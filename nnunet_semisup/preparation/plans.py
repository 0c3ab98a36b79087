"""nnU-Net's plans of a data set, and what to type where they are missing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.layout import FINGERPRINT_FILE, SPLITS_FILE, stamp_file
from nnunet_semisup.preparation.raw import DatasetFolders

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

CASCADE = "3d_cascade_fullres"
DEFAULT_PLANS = "nnUNetPlans"
DEFAULT_CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")
"""What nnU-Net preprocesses for unless told; plans without one of them are as good."""
_PLANNERS = {
    f"nnUNetResEncUNet{size}Plans": f"nnUNetPlannerResEnc{size}" for size in ("M", "L", "XL")
}
"""nnU-Net's recommended planners by the plans they make."""
_OTHER_FILES = ("dataset.json", FINGERPRINT_FILE, SPLITS_FILE)
_STAMP_ENDING = stamp_file("", "").name


def load_plans(folders: DatasetFolders, plans_identifier: str) -> PlansManager:
    """Load the plans of a data set by name.

    Raises:
        UserError: there are no such plans; the message has the command that makes them.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    path = folders.preprocessed / f"{plans_identifier}.json"
    if not path.is_file():
        raise UserError(_no_plans(folders, path))
    return PlansManager(str(path))


def plans_there(folder: Path) -> list[Path]:
    """Return the files with plans in a data set's folder of ``nnUNet_preprocessed``, by name."""
    return sorted(path for path in folder.glob("*.json") if not is_no_plans(path.name))


def is_no_plans(name: str) -> bool:
    """Return whether a file beside plans has, by its name, another content."""
    return name in _OTHER_FILES or name.endswith(_STAMP_ENDING)


def refuse_cascade(configurations: Collection[str]) -> None:
    """Refuse the configuration that needs predictions of a previous stage.

    Raises:
        UserError: ``3d_cascade_fullres`` is among ``configurations``.
    """
    if CASCADE in configurations:
        raise UserError(_cascade_message(CASCADE, ["2d", "3d_lowres", "3d_fullres"]))


def _cascade_message(name: str, possible: Sequence[str]) -> str:
    return (
        f"{name} cannot be used with unlabeled cases: it needs predictions of the previous stage "
        "for every training case, and nnU-Net makes none for them. Possible configurations: "
        f"{', '.join(possible)}."
    )


def choose_configurations(
    plans_manager: PlansManager, configurations: Sequence[str], plans_identifier: str
) -> list[str]:
    """Return those of ``configurations`` that the plan has, each once; say which it has not.

    Raises:
        UserError: a cascade's second stage, or a name that is neither in the plan nor among
            nnU-Net's default ones.
    """
    available = plans_manager.available_configurations
    possible = [n for n in available if not plans_manager.get_configuration(n).previous_stage_name]
    chosen = [name for name in dict.fromkeys(configurations) if name in available]
    for name in chosen:
        if name not in possible:
            raise UserError(_cascade_message(name, possible))
    absent = [name for name in dict.fromkeys(configurations) if name not in available]
    unknown = absent if not chosen else [n for n in absent if n not in DEFAULT_CONFIGURATIONS]
    if unknown:
        raise UserError(
            f"{plans_identifier}.json has no configuration {' or '.join(unknown)}. "
            f"Possible configurations: {', '.join(possible)}."
        )
    for name in absent:
        print(f"Configuration {name} is not in {plans_identifier}.json; skipped.")
    return chosen


def single_output_fault(plans_manager: PlansManager, configuration: str) -> str | None:
    """Return why a configuration cannot be trained with deep supervision, if it cannot.

    nnU-Net 2.8.1 (``nnUNetTrainer._build_loss``) gives the network's outputs, one fewer than it
    has stages, the weights 1, 1/2, 1/4 ..., sets the last one to 0 and divides by their sum. Of a
    single output that is 0/0: the loss is NaN from the first step. Small images lead to such a
    plan, for example of 12 voxels on every axis.

    Args:
        plans_manager: plans.
        configuration: name of one of theirs.
    """
    settings = plans_manager.get_configuration(configuration)
    strides = settings.network_arch_init_kwargs.get("strides")
    if strides is None or len(strides) > 2:  # without strides: no network of nnU-Net's
        return None
    stages = len(strides)
    size = " x ".join(str(length) for length in settings.patch_size)
    what = f"{plans_manager.plans_name}, {configuration}: the network has {stages} stage(s)"
    if stages < 2:
        return f"{what} and no decoder (patch {size}); nnU-Net cannot train it. Use larger images"
    return (
        f"{what} and one output (patch {size}), whose weight under deep supervision nnU-Net "
        "computes as 0/0, so that the loss is NaN from the first step. Train without deep "
        'supervision: nnUNet_semisup_set="enable_deep_supervision=False"; nnUNetTrainerURPC, which '
        "compares outputs, cannot be trained on it"
    )


def single_outputs(folders: DatasetFolders, plans_identifier: str | None = None) -> list[str]:
    """Return :func:`single_output_fault` of every configuration of plans of a data set.

    Files that are no plans are passed by.

    Args:
        folders: raw and preprocessed folder of the data set.
        plans_identifier: name of plans; ``None`` for all that there are.
    """
    there = [path.stem for path in plans_there(folders.preprocessed)]
    found = []
    for name in there if plans_identifier is None else [plans_identifier]:
        try:
            manager = load_plans(folders, name)
            configurations = manager.available_configurations
            found += [single_output_fault(manager, each) for each in configurations]
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return [fault for fault in found if fault is not None]


def _no_plans(folders: DatasetFolders, path: Path) -> str:
    """Say what to do where the plans at ``path`` are missing."""
    plans = [other.stem for other in plans_there(folders.preprocessed)]
    command = f"nnUNetv2_semisup_plan_and_preprocess -d {folders.name[7:10]}"
    if path.stem == DEFAULT_PLANS:
        making = f"Run {command}"
    elif path.stem in _PLANNERS:
        making = f"Run {command} -pl {_PLANNERS[path.stem]}"
    else:
        made, planner = next(iter(_PLANNERS.items()))
        making = f"Make them with {command} -pl PLANNER ({planner} makes {made})"
    another = ", or name other plans with -plans_name" if plans else ""
    return (
        f"{path} does not exist (plans of {folders.name}: {', '.join(plans) or 'none'}). "
        f"{making}{another}."
    )
