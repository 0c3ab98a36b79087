"""Mean Teacher with class texts: what Text-SemiSeg's text part adds to another method.

[0] Text-SemiSeg, MICCAI 2025, arXiv 2507.12382, table 4 (there with UA-MT and DTC).
[1] Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv 1703.01780.

Deviates from [0] and [1] as trainers/mean_teacher.py and training/text_guidance.py say.
"""

from __future__ import annotations

from collections.abc import Iterator

from nnunet_semisup.losses.consistency import squared_difference
from nnunet_semisup.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.text_guidance import TextGuidance


class nnUNetTrainerMeanTeacherText(TextGuidance, nnUNetTrainerMeanTeacher):
    """nnUNetTrainerMeanTeacher with texts at the bottleneck and their alignment ([0], table 4)."""

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        text = self.step_text()
        (logits,), visual = self.network(labeled.image, text, (0,))
        yield {
            "supervised": self.supervised_loss(logits, labeled.target),
            **self.alignment_terms("labeled", [logits], visual, text),
        }
        del logits, visual  # Memory for the next pass.

        weight = self.current_unlabeled_weight
        if weight > 0:
            target = self.teacher_logits(unlabeled.image)
            (logits,), visual = self.network(unlabeled.strong_view(), text, (0,))
            student = self.full_resolution(logits)
            distance = squared_difference(student, target, self.regions, unlabeled.valid)
            yield {
                "consistency": weight * distance,
                **self.alignment_terms("unlabeled", [logits], visual, text, unlabeled.valid),
            }
