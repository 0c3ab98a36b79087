"""Mean Teacher with class texts: what Text-SemiSeg's text part adds to another method.

[0] Text-SemiSeg, MICCAI 2025, arXiv 2507.12382, table 4 (there with UA-MT and DTC).
[1] Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv 1703.01780.

Deviates from [0] and [1] as trainers/mean_teacher.py and training/text_guidance.py say.
"""

from __future__ import annotations

from nnunet_semisup.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_semisup.training.text_guidance import TextGuidance


class nnUNetTrainerMeanTeacherText(TextGuidance, nnUNetTrainerMeanTeacher):
    """Train nnUNetTrainerMeanTeacher with texts at the bottleneck, aligned ([0], table 4)."""
