"""HoME in the network of plain plans, on labeled cases; any other trainer takes it by its plans.

The part: :mod:`nnunet_semisup.architectures.home`.
"""

from __future__ import annotations

from typing import ClassVar

from nnunet_semisup.trainers.with_insert import SupervisedWithInsert


class nnUNetTrainerHoME(SupervisedWithInsert):
    """Train nnU-Net's network with a hierarchical mixture of experts in it on labeled cases."""

    insert: ClassVar[str] = "home"
