"""UA-MT with class texts.

[0] Text-SemiSeg, MICCAI 2025, arXiv 2507.12382, table 4.
[1] Yu et al., UA-MT, MICCAI 2019, arXiv 1907.07034.

Deviates from [0] and [1] as trainers/uamt.py and training/text_guidance.py say.
"""

from __future__ import annotations

from nnunet_semisup.trainers.uamt import nnUNetTrainerUAMT
from nnunet_semisup.training.text_guidance import TextGuidance


class nnUNetTrainerUAMTText(TextGuidance, nnUNetTrainerUAMT):
    """Train nnUNetTrainerUAMT with texts at the bottleneck, aligned ([0], table 4)."""
