"""Mean Teacher: the student agrees with its own moving average on unlabeled images.

[0] Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv 1703.01780.

Deviates from [0] and from its medical ports: the student sees the strong view and the teacher the
weak one (ports add noise to the teacher's image and show the student the clean one), the ramp is
a fraction of training, and the teacher predicts.
"""

from __future__ import annotations

from collections.abc import Iterator

from nnunet_semisup.losses.consistency import squared_difference
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.ranges import Weight
from nnunet_semisup.training.teacher import TeacherTrainer


class nnUNetTrainerMeanTeacher(TeacherTrainer):
    """Train towards an EMA teacher's probabilities by mean squared difference ([0], section 2)."""

    unlabeled_weight: Weight = 0.1
    """Greatest weight of the consistency (the value of UA-MT's and SSL4MIS's Mean Teacher)."""

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        yield self.labeled_terms(labeled)

        weight = self.current_unlabeled_weight
        if weight > 0:
            target = self.teacher_logits(unlabeled.image)
            seen = self.student_pass(unlabeled.strong_view(), "unlabeled", unlabeled.valid)
            student = self.full_resolution(seen.logits)
            distance = squared_difference(student, target, self.regions, unlabeled.valid)
            yield {"consistency": weight * distance, **seen.terms}
