"""Content of a row of the table of methods; importable without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

FAMILIES = {
    "control": "Labeled cases alone, the lower bound",
    "teacher": "A teacher, the student's moving average, and consistency",
    "pseudo-labels": "Confident labels of weak views on strong views",
    "members": "Several outputs, decoders or networks that teach each other",
    "tasks": "A second task, or a property, that one network is trained for",
    "mixing": "Labeled and unlabeled patches mixed",
    "networks": "Network parts and losses of other papers, on labeled cases alone",
    "text": "Class texts in the network",
}
"""Families of methods by their key, in the order of tables."""

CLASSES, REGIONS, IGNORE_LABEL = "classes", "regions", "ignore label"
"""Kinds of labels: one class a voxel, overlapping regions, and voxels without a label."""


@dataclass(frozen=True)
class Method:
    """Describe one trainer.

    Attributes:
        trainer: class name, as given to ``nnUNetv2_train -tr``; never renamed (results paths).
        module: module below ``nnunet_semisup.trainers`` that defines it.
        family: key of :data:`FAMILIES`.
        title: what the method does, in a few words.
        paper: authors, venue and year; ``-`` for a control that no paper stands for.
        url: where to read the paper.
        page: page below ``docs/methods``, without its ending; empty: named for the module.
        forwards: passes of a labeled batch through an encoder in a step, unlabeled batches being
            as large: those propagated back and those without gradient.
        decoder_forwards: the same of the decoders; ``None``: as the encoders.
        parameters: trained ones and others kept beside them, over the stock trainer's, as
            ``benchmarks/step_cost.py`` counts them.
        cost: floating-point operations of a step over the stock trainer's at the same labeled
            batch, as ``benchmarks/step_cost.py`` counts them.
        unlabeled_at_once: unlabeled batches in a pass that is propagated back, by which
            ``training/memory.py`` estimates a step; 0: there is no estimate.
        predicts_as: trainer name in the checkpoint; ``nnUNetTrainer`` where stock nnU-Net without
            this package can predict.
        needs: what training takes besides the images.
        dims: spatial dimensions that it trains in.
        labels: kinds of labels that it trains with.
        uses_unlabeled: whether unlabeled cases are drawn at all.
        has_teacher: whether a moving average of the student teaches it.
        labels_alone: whether the first group of a step's losses is nnU-Net's own of the labeled
            patches, so that a step without unlabeled weight is nnUNetTrainer's.
        ramp: whether unlabeled terms start near 0 and rise.
        without_deep_supervision: whether it can be trained with a single output.
        trial: settings, as ``nnUNet_semisup_set`` takes them, under which every term acts from the
            first step on an untrained network, without downloads and without waiting for a device.
    """

    trainer: str
    module: str
    family: str
    title: str
    paper: str
    url: str
    cost: str
    forwards: tuple[float, float]
    parameters: tuple[str, str]
    decoder_forwards: tuple[float, float] | None = None
    page: str = ""
    unlabeled_at_once: int = 1
    predicts_as: str = "nnUNetTrainer"
    needs: str = "-"
    dims: tuple[int, ...] = (2, 3)
    labels: tuple[str, ...] = (CLASSES, REGIONS, IGNORE_LABEL)
    uses_unlabeled: bool = True
    has_teacher: bool = True
    labels_alone: bool = True
    ramp: bool = True
    without_deep_supervision: bool = True
    trial: str = ""

    @property
    def year(self) -> int:
        """The year of the paper."""
        return int(re.findall(r"\b(?:19|20)\d\d\b", self.paper)[0])
