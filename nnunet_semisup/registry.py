"""The table of methods: one row a trainer, importable without torch.

The command line, the docs and the contract tests all read this table, so a trainer that is listed
here is documented and tested, and one that is not does not exist.
"""

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
    "text": "Class texts in the network",
}
"""Families of methods by their key, in the order of tables."""


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
    predicts_as: str = "nnUNetTrainer"
    needs: str = "-"
    dims: tuple[int, ...] = (2, 3)
    labels: tuple[str, ...] = ("classes", "regions", "ignore label")
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


TEXT_WEIGHTS = "CLIP or BiomedCLIP text weights, or a file of their features"

METHODS: tuple[Method, ...] = (
    Method(
        trainer="nnUNetTrainerSupervised",
        module="supervised",
        family="control",
        title="stock nnUNetTrainer with a settable budget and seed (the lower bound)",
        paper="Isensee et al., Nature Methods 2021",
        url="https://doi.org/10.1038/s41592-020-01008-z",
        cost="1",
        forwards=(1, 0),
        parameters=("?", "?"),
        uses_unlabeled=False,
        has_teacher=False,
    ),
    Method(
        trainer="nnUNetTrainerMeanTeacher",
        module="mean_teacher",
        family="teacher",
        title="EMA teacher, mean squared consistency",
        paper="Tarvainen and Valpola, NeurIPS 2017",
        url="https://arxiv.org/abs/1703.01780",
        cost="2.3",
        forwards=(2, 1),
        parameters=("?", "?"),
    ),
    Method(
        trainer="nnUNetTrainerUAMT",
        module="uamt",
        family="teacher",
        title="EMA teacher, consistency where dropout leaves it sure",
        paper="UA-MT, Yu et al., MICCAI 2019",
        url="https://arxiv.org/abs/1907.07034",
        cost="5",
        forwards=(2, 9),
        parameters=("?", "?"),
    ),
    Method(
        trainer="nnUNetTrainerPseudoLabel",
        module="pseudo_label",
        family="pseudo-labels",
        title="EMA teacher, confident pseudo-labels, CutMix (VQ-Seg without its quantizer)",
        paper="after UniMatch V2, Yang et al., TPAMI 2025",
        url="https://arxiv.org/abs/2410.10777",
        cost="2.3",
        forwards=(2, 1),
        parameters=("?", "?"),
        trial="confidence_threshold=None",
    ),
    Method(
        trainer="nnUNetTrainerFixMatch",
        module="fixmatch",
        family="pseudo-labels",
        title="the student's own confident pseudo-labels, no teacher",
        paper="FixMatch, Sohn et al., NeurIPS 2020",
        url="https://arxiv.org/abs/2001.07685",
        cost="?",
        forwards=(2, 1),
        parameters=("?", "?"),
        has_teacher=False,
        ramp=False,
        trial="confidence_threshold=None",
    ),
    Method(
        trainer="nnUNetTrainerUniMatch",
        module="unimatch",
        family="pseudo-labels",
        title="EMA teacher, two CutMixed strong views, complementary channel dropout",
        paper="UniMatch V2, Yang et al., TPAMI 2025",
        url="https://arxiv.org/abs/2410.10777",
        cost="?",
        forwards=(3, 1),
        parameters=("?", "?"),
        ramp=False,
        trial="confidence_threshold=None",
    ),
    Method(
        trainer="nnUNetTrainerVQSeg",
        module="vqseg",
        family="pseudo-labels",
        title="vector-quantized perturbation, dual branch, foundation-model alignment",
        paper="VQ-Seg, NeurIPS 2025",
        url="https://arxiv.org/abs/2601.10124",
        cost="2.4",
        forwards=(2, 1),
        parameters=("?", "?"),
        predicts_as="nnUNetTrainerVQSeg",
        needs="DINOv2 weights for the alignment (optional, off by default)",
        trial="confidence_threshold=None",
    ),
    Method(
        trainer="nnUNetTrainerCPS",
        module="cps",
        family="members",
        title="two networks with each other's hard labels",
        paper="CPS, Chen et al., CVPR 2021",
        url="https://arxiv.org/abs/2106.01226",
        cost="4",
        forwards=(4, 0),
        parameters=("?", "?"),
        has_teacher=False,
    ),
    Method(
        trainer="nnUNetTrainerABD",
        module="abd",
        family="members",
        title="two networks with each other's labels, cells moved between their views",
        paper="ABD, Chi et al., CVPR 2024",
        url="https://arxiv.org/abs/2405.00378",
        cost="?",
        forwards=(12, 0),
        parameters=("?", "?"),
        has_teacher=False,
        trial="displaced_until=1",
    ),
    Method(
        trainer="nnUNetTrainerMCNet",
        module="mcnet",
        family="members",
        title="two decoders that agree with each other's sharpened outputs",
        paper="MC-Net, Wu et al., MICCAI 2021",
        url="https://arxiv.org/abs/2103.02911",
        cost="4.3",
        forwards=(2, 0),
        parameters=("?", "?"),
        decoder_forwards=(4, 0),
        has_teacher=False,
    ),
    Method(
        trainer="nnUNetTrainerMCNetPlus",
        module="mcnet",
        family="members",
        title="three decoders that agree with each other's sharpened outputs",
        paper="MC-Net+, Wu et al., Medical Image Analysis 2022",
        url="https://arxiv.org/abs/2109.09960",
        cost="6.5",
        forwards=(2, 0),
        parameters=("?", "?"),
        decoder_forwards=(6, 0),
        has_teacher=False,
    ),
    Method(
        trainer="nnUNetTrainerDTC",
        module="dtc",
        family="tasks",
        title="segmentation and a signed distance map that agree",
        paper="DTC, Luo et al., AAAI 2021",
        url="https://arxiv.org/abs/2009.04448",
        cost="?",
        forwards=(2, 0),
        parameters=("?", "?"),
        has_teacher=False,
    ),
    Method(
        trainer="nnUNetTrainerSSNet",
        module="ssnet",
        family="tasks",
        title="smoothness against adversarial noise, attraction to prototypes of classes",
        paper="SS-Net, Wu et al., MICCAI 2022",
        url="https://arxiv.org/abs/2203.01324",
        cost="?",
        forwards=(4, 0),
        parameters=("?", "?"),
        has_teacher=False,
    ),
    Method(
        trainer="nnUNetTrainerURPC",
        module="urpc",
        family="members",
        title="outputs at several resolutions that agree where they are sure",
        paper="URPC, Luo et al., MICCAI 2021",
        url="https://arxiv.org/abs/2012.07042",
        cost="?",
        forwards=(2, 0),
        parameters=("?", "?"),
        has_teacher=False,
        without_deep_supervision=False,
    ),
    Method(
        trainer="nnUNetTrainerMCF",
        module="mcf",
        family="members",
        title="a plain and a residual network, of which the better one teaches the other",
        paper="MCF, Wang et al., CVPR 2023",
        url="https://openaccess.thecvf.com/content/CVPR2023/html/Wang_MCF_Mutual_Correction_Framework_for_Semi-Supervised_Medical_Image_Segmentation_CVPR_2023_paper.html",
        cost="?",
        forwards=(3, 1),
        parameters=("?", "?"),
        has_teacher=False,
    ),
    Method(
        trainer="nnUNetTrainerBCP",
        module="bcp",
        family="mixing",
        title="boxes pasted both ways between labeled and unlabeled patches",
        paper="BCP, Bai et al., CVPR 2023",
        url="https://arxiv.org/abs/2305.00673",
        cost="2.3",
        forwards=(2, 1),
        parameters=("?", "?"),
        labels_alone=False,
        ramp=False,
        trial="mix_start=0,largest_component=False",
    ),
    Method(
        trainer="nnUNetTrainerTextSemiSeg",
        module="text_semiseg",
        family="text",
        title="two decoders, class texts at the bottleneck, exchanged foregrounds",
        paper="Text-SemiSeg, MICCAI 2025",
        url="https://arxiv.org/abs/2507.12382",
        cost="6.6",
        forwards=(4, 0),
        parameters=("?", "?"),
        decoder_forwards=(6, 0),
        predicts_as="nnUNetTrainerTextSemiSeg",
        needs=TEXT_WEIGHTS,
        has_teacher=False,
        trial="text_model=random,mix_start=0",
    ),
    Method(
        trainer="nnUNetTrainerVCLIPSeg",
        module="vclipseg",
        family="text",
        title="two decoders with a common label, class texts fused into each voxel",
        paper="VCLIPSeg, Li et al., MICCAI 2024",
        url="https://papers.miccai.org/miccai-2024/827-Paper1949.html",
        cost="?",
        forwards=(2, 0),
        parameters=("?", "?"),
        decoder_forwards=(4, 0),
        predicts_as="nnUNetTrainerVCLIPSeg",
        needs=TEXT_WEIGHTS,
        has_teacher=False,
        trial="text_model=random",
    ),
    Method(
        trainer="nnUNetTrainerMeanTeacherText",
        module="mean_teacher_text",
        family="text",
        title="Mean Teacher with Text-SemiSeg's class texts",
        paper="after Text-SemiSeg, MICCAI 2025, table 4",
        url="https://arxiv.org/abs/2507.12382",
        cost="2.5",
        forwards=(2, 1),
        parameters=("?", "?"),
        page="mean_teacher",
        predicts_as="nnUNetTrainerMeanTeacherText",
        needs=TEXT_WEIGHTS,
        trial="text_model=random",
    ),
    Method(
        trainer="nnUNetTrainerUAMTText",
        module="uamt_text",
        family="text",
        title="UA-MT with Text-SemiSeg's class texts",
        paper="after Text-SemiSeg, MICCAI 2025, table 4",
        url="https://arxiv.org/abs/2507.12382",
        cost="5.4",
        forwards=(2, 9),
        parameters=("?", "?"),
        page="uamt",
        predicts_as="nnUNetTrainerUAMTText",
        needs=TEXT_WEIGHTS,
        trial="text_model=random",
    ),
    Method(
        trainer="nnUNetTrainerDTCText",
        module="dtc_text",
        family="text",
        title="DTC with Text-SemiSeg's class texts",
        paper="after Text-SemiSeg, MICCAI 2025, table 4",
        url="https://arxiv.org/abs/2507.12382",
        cost="?",
        forwards=(2, 0),
        parameters=("?", "?"),
        page="dtc",
        predicts_as="nnUNetTrainerDTCText",
        needs=TEXT_WEIGHTS,
        has_teacher=False,
        trial="text_model=random",
    ),
)


def find_method(trainer: str) -> Method:
    """Return the row of ``trainer``.

    Raises:
        KeyError: no such trainer; the message lists those there are.
    """
    for method in METHODS:
        if method.trainer == trainer:
            return method
    raise KeyError(f"{trainer} is not one of {', '.join(m.trainer for m in METHODS)}")
