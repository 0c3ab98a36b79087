"""NSDA in the network of plain plans, on labeled cases; any other trainer takes it by its plans.

The part: :mod:`nnunet_semisup.architectures.nsda`.
"""

from __future__ import annotations

from typing import ClassVar

from nnunet_semisup.trainers.with_insert import SupervisedWithInsert


class nnUNetTrainerNSDA(SupervisedWithInsert):
    """Train nnU-Net's network with neighborhood self-dissimilarity attention on labeled cases."""

    insert: ClassVar[str] = "nsda"
