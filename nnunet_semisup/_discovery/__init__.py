"""Make nnU-Net's own commands find this package's trainers after a bare ``pip install``.

nnU-Net 2.8 searches the folders named in the environment variable ``nnUNet_extTrainer`` for
trainer classes. A one-line ``.pth`` file in site-packages calls :func:`install` when Python starts;
spawned workers inherit the variable. Only the standard library is imported here, because every
interpreter of the environment passes through this file. ``NNUNET_SEMISUP_DISCOVERY=0`` switches it
off.
"""

import os

VARIABLE = "nnUNet_extTrainer"
OPT_OUT = "NNUNET_SEMISUP_DISCOVERY"
EXT_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ext")


def install() -> None:
    """Append the folder of re-exported trainers to ``nnUNet_extTrainer``, after the user's own."""
    if os.environ.get(OPT_OUT) == "0":
        return
    folders = [f for f in os.environ.get(VARIABLE, "").split(os.pathsep) if f]
    if EXT_FOLDER not in folders:
        os.environ[VARIABLE] = os.pathsep.join([*folders, EXT_FOLDER])
