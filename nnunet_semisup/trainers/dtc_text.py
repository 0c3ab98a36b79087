"""DTC with class texts.

[0] Text-SemiSeg, MICCAI 2025, arXiv 2507.12382, table 4.
[1] Luo et al., DTC, AAAI 2021, arXiv 2009.04448.

Deviates from [0] and [1] as trainers/dtc.py and training/text_guidance.py say.
"""

from __future__ import annotations

from nnunet_semisup.trainers.dtc import nnUNetTrainerDTC
from nnunet_semisup.training.text_guidance import TextGuidance


class nnUNetTrainerDTCText(TextGuidance, nnUNetTrainerDTC):
    """Train nnUNetTrainerDTC with texts at the bottleneck, aligned ([0], table 4)."""
