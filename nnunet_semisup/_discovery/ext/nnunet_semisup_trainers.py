"""Re-exports the trainers, for nnU-Net's search through ``nnUNet_extTrainer``.

An interpreter of another environment may inherit the variable without having the package; the
search then goes on instead of failing.
"""

import importlib.util

if importlib.util.find_spec("nnunet_semisup") is not None:
    from nnunet_semisup.trainers import *  # noqa: F403
