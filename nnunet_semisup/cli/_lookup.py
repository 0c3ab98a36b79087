"""Search for a trainer class as nnU-Net does, and explain what its failures mean."""

from __future__ import annotations

import os

from nnunet_semisup import _discovery


def resolve(name: str) -> type:
    """Return the class that ``nnUNetv2_train -tr name`` would use.

    Raises:
        Exception: whatever the search raises, also from modules that it imports on its way.
    """
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    found: type = recursive_find_trainer_class_by_name(name)
    return found


def explain(error: Exception) -> str:
    """Describe a failed search in terms of what to do."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    folders = os.environ.get(_discovery.VARIABLE, "").split(os.pathsep)
    if os.environ.get(_discovery.OPT_OUT) == "0":
        return f"not found, because {_discovery.OPT_OUT}=0 switches the discovery off: unset it"
    if _discovery.EXT_FOLDER not in folders:
        return (
            "not found, because the package's .pth file was not read at the start of Python (it "
            "lies outside of a site-packages folder, or Python was started with -S). Set "
            f"{_discovery.VARIABLE}={_discovery.EXT_FOLDER}"
        )
    if "torchvision" in str(error):
        return (
            "not found, because nnU-Net's search imports torchvision, which fails here "
            f"({reason}). Install the torchvision release that belongs to the installed torch"
        )
    return f"not found ({reason})"
