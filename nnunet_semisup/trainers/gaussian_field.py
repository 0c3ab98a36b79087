"""A field of Gaussians as head in the network of plain plans, on labeled cases.

The part: :mod:`nnunet_semisup.architectures.gaussian_field`. Any other trainer takes it by its
plans.
"""

from __future__ import annotations

from typing import ClassVar

from nnunet_semisup.trainers.with_insert import SupervisedWithInsert


class nnUNetTrainerGaussianField(SupervisedWithInsert):
    """Train nnU-Net's 2D network with a head in GauSAM's manner on labeled cases."""

    insert: ClassVar[str] = "gaussian_field"
