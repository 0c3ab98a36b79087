"""The table of methods: one row a trainer, importable without torch.

The command line, the docs and the contract tests all read this table, so a trainer that is listed
here is documented and tested, and one that is not does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One trainer.

    Attributes:
        trainer: class name, as given to ``nnUNetv2_train -tr``; never renamed (results paths).
        module: module below ``nnunet_semisup.trainers`` that defines it.
        title: what the method does, in a few words.
        paper: authors, venue and year; ``-`` for a control that no paper stands for.
        url: where to read the paper.
        dims: spatial dimensions that it trains in.
        cost: floating-point operations of a step over the stock trainer's at the same labeled
            batch, as ``benchmarks/step_cost.py`` counts them.
        predicts_as: trainer name in the checkpoint; ``nnUNetTrainer`` where stock nnU-Net without
            this package can predict.
        needs: what training takes besides the images.
        uses_unlabeled: whether unlabeled cases are drawn at all.
        has_teacher: whether a moving average of the student teaches it.
    """

    trainer: str
    module: str
    title: str
    paper: str
    url: str
    dims: tuple[int, ...]
    cost: str
    predicts_as: str
    needs: str
    uses_unlabeled: bool = True
    has_teacher: bool = True


METHODS: tuple[Method, ...] = (
    Method(
        trainer="nnUNetTrainerSupervised",
        module="supervised",
        title="stock nnUNetTrainer with a settable budget and seed (the lower bound)",
        paper="Isensee et al., Nature Methods 2021",
        url="https://doi.org/10.1038/s41592-020-01008-z",
        dims=(2, 3),
        cost="1",
        predicts_as="nnUNetTrainer",
        needs="-",
        uses_unlabeled=False,
        has_teacher=False,
    ),
    Method(
        trainer="nnUNetTrainerMeanTeacher",
        module="mean_teacher",
        title="EMA teacher, mean squared consistency",
        paper="Tarvainen and Valpola, NeurIPS 2017",
        url="https://arxiv.org/abs/1703.01780",
        dims=(2, 3),
        cost="2.3",
        predicts_as="nnUNetTrainer",
        needs="-",
    ),
    Method(
        trainer="nnUNetTrainerPseudoLabel",
        module="pseudo_label",
        title="EMA teacher, confident pseudo-labels, CutMix (VQ-Seg without its quantizer)",
        paper="after UniMatch V2, Yang et al., TPAMI 2025",
        url="https://arxiv.org/abs/2410.10777",
        dims=(2, 3),
        cost="2.3",
        predicts_as="nnUNetTrainer",
        needs="-",
    ),
    Method(
        trainer="nnUNetTrainerVQSeg",
        module="vqseg",
        title="vector-quantized perturbation, dual branch, foundation-model alignment",
        paper="VQ-Seg, NeurIPS 2025",
        url="https://arxiv.org/abs/2601.10124",
        dims=(2, 3),
        cost="2.4",
        predicts_as="nnUNetTrainerVQSeg",
        needs="DINOv2 weights for the alignment (optional, off by default)",
    ),
    Method(
        trainer="nnUNetTrainerTextSemiSeg",
        module="text_semiseg",
        title="two decoders, class texts at the bottleneck, exchanged foregrounds",
        paper="Text-SemiSeg, MICCAI 2025",
        url="https://arxiv.org/abs/2507.12382",
        dims=(2, 3),
        cost="7.5",
        predicts_as="nnUNetTrainerTextSemiSeg",
        needs="CLIP or BiomedCLIP text weights, or a file of their features",
        has_teacher=False,
    ),
    Method(
        trainer="nnUNetTrainerMeanTeacherText",
        module="mean_teacher_text",
        title="Mean Teacher with Text-SemiSeg's class texts",
        paper="after Text-SemiSeg, MICCAI 2025, table 4",
        url="https://arxiv.org/abs/2507.12382",
        dims=(2, 3),
        cost="2.5",
        predicts_as="nnUNetTrainerMeanTeacherText",
        needs="as nnUNetTrainerTextSemiSeg",
    ),
)


def find_method(trainer: str) -> Method:
    """The row of ``trainer``.

    Raises:
        KeyError: no such trainer; the message lists those there are.
    """
    for method in METHODS:
        if method.trainer == trainer:
            return method
    raise KeyError(f"{trainer} is not one of {', '.join(m.trainer for m in METHODS)}")
