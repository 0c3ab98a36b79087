"""Voxels drawn for a contrast of classes, and memories of what they are compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnunet_semisup.losses.contrast import (
    cell_means,
    class_contrast,
    class_means,
    neighbour_distance,
    relational_divergence,
)
from nnunet_semisup.losses.prototypes import at_voxels
from nnunet_semisup.losses.stratified import Sampling, draw_stratified, strata_of
from nnunet_semisup.networks.class_memory import ClassMemory
from nnunet_semisup.networks.representation import WIDTH

CELLS = 4
"""Cells along each axis: 16 in 2D (ARCO), 64 in 3D."""
ANCHORS = 256
"""Voxels of a class that are drawn in a pass (ARCO's released code)."""
NEGATIVES = 512
"""Voxels of other classes that are drawn for a class in a step (ARCO's released code)."""
KEPT = 2048
"""Negatives of a class in its memory, those of the last steps."""
TEMPERATURE = 0.5
"""Of the contrast of classes (ARCO)."""
PATCHES = 36
"""Patches whose cells are remembered (ARCO's released code)."""
NEIGHBOURS = 5
"""Of a cell (ARCO's released code)."""
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.01
"""Of comparisons with other patches (ARCO)."""


class ClassContrast(nn.Module):
    """Contrast voxels of a class with its mean and with voxels of other classes.

    ARCO (You et al., NeurIPS 2023, arXiv 2302.01735), equations E.2 and E.3. The memory is not part
    of the network: a teacher would average it, and each process remembers its own patches.

    Args:
        classes: number of classes.
        sampling: how voxels are drawn.
    """

    def __init__(self, classes: int, sampling: Sampling) -> None:
        super().__init__()
        self.sampling = sampling
        self.memory = ClassMemory(classes, KEPT, WIDTH)

    @torch.no_grad()
    def learn(self, maps: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Remember voxels of other classes for each class, and return the means of the classes.

        Args:
            maps: ``(B, D, *spatial)`` of the teacher.
            classes: ``(B, K, *spatial)`` bool; voxels without class are in no memory.

        Returns:
            As of :func:`~nnunet_semisup.losses.contrast.class_means`.
        """
        others = classes.any(1, keepdim=True) & ~classes
        places, there = self._draw(others, classes, NEGATIVES)
        self.memory.put(at_voxels(maps, places), there)
        return class_means(maps, classes)

    def distance(self, maps: Tensor, classes: Tensor, means: tuple[Tensor, Tensor]) -> Tensor:
        """Return the contrast of drawn voxels with the means of their classes and the memory.

        Args:
            maps: ``(B, D, *spatial)`` of the student.
            classes: ``(B, K, *spatial)`` bool.
            means: what :meth:`learn` returned.
        """
        places, there = self._draw(classes, classes, ANCHORS)
        anchors = at_voxels(maps, places)
        return class_contrast(anchors, there, *means, *self.memory.per_class(), TEMPERATURE)

    def _draw(self, candidates: Tensor, classes: Tensor, count: int) -> tuple[Tensor, Tensor]:
        return draw_stratified(candidates, strata_of(classes, CELLS), count, self.sampling)


class EarlierPatches(nn.Module):
    """Compare cells of patches with those of patches before them, first in, first out.

    Args:
        dims: 2 or 3.
        per_axis: cells along each axis of a patch.
    """

    def __init__(self, dims: int, per_axis: int) -> None:
        super().__init__()
        self.grid = (per_axis,) * dims
        self.memory = ClassMemory(1, PATCHES * per_axis**dims, WIDTH)

    def relations(self, student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
        """Return how differently both compare cells with earlier ones; remember the teacher's.

        Args:
            student: ``(B, D, *spatial)``.
            teacher: the same, of another view of the patches.
            valid: ``(B, 1, *spatial)`` bool, false in padding, at any resolution.
        """
        student, teacher, weights = self._cells(student, teacher, valid)
        temperatures = STUDENT_TEMPERATURE, TEACHER_TEMPERATURE
        loss = relational_divergence(student, teacher, *self._earlier(), weights, *temperatures)
        self._remember(teacher, weights)
        return loss

    def neighbours(self, student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
        """Return the student's distance from the earlier cells nearest to the teacher's.

        The arguments, and what is remembered, are those of :meth:`relations`.
        """
        student, teacher, weights = self._cells(student, teacher, valid)
        loss = neighbour_distance(student, teacher, *self._earlier(), weights, NEIGHBOURS)
        self._remember(teacher, weights)
        return loss

    def _cells(
        self, student: Tensor, teacher: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows, weights = cell_means(student, valid, self.grid)
        return rows, cell_means(teacher, valid, self.grid)[0], weights

    def _earlier(self) -> tuple[Tensor, Tensor]:
        rows, filled = self.memory.per_class()
        return rows[0], filled[0]

    def _remember(self, rows: Tensor, weights: Tensor) -> None:
        self.memory.put(rows[None], (weights > 0)[None])
