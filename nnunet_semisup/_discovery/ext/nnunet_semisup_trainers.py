"""Give the trainers by name to nnU-Net's search through ``nnUNet_extTrainer``.

An interpreter of another environment may inherit the variable without having the package; the
search then goes on instead of failing.
"""

import importlib.util
import os
import sys
from typing import Any

_IS_THERE = importlib.util.find_spec("nnunet_semisup") is not None


def __getattr__(name: str) -> Any:
    """Return a trainer of this package, or what a trainer is made from.

    ``nnUNetv2_train`` looks for its trainer first. Folders that are named wrongly are refused here,
    where it would go on to look for the data set in them and say that there is none.
    """
    if _IS_THERE:
        from nnunet_semisup import trainers

        if name in trainers.__all__:
            if os.path.basename(sys.argv[0]).startswith("nnUNetv2_train"):
                _check_environment()
            return getattr(trainers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _check_environment() -> None:
    from nnunet_semisup.errors import exit_code_two_in_commands
    from nnunet_semisup.preparation.environment import check_environment

    with exit_code_two_in_commands():
        check_environment()
