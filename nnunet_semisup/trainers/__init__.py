"""The trainers, one method a file, and what a trainer of one's own is made from."""

from nnunet_semisup.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_semisup.trainers.mean_teacher_text import nnUNetTrainerMeanTeacherText
from nnunet_semisup.trainers.pseudo_label import nnUNetTrainerPseudoLabel
from nnunet_semisup.trainers.supervised import nnUNetTrainerSupervised
from nnunet_semisup.trainers.text_semiseg import nnUNetTrainerTextSemiSeg
from nnunet_semisup.trainers.vqseg import nnUNetTrainerVQSeg
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.loop import SemiSupervisedTrainer
from nnunet_semisup.training.text_guidance import TextGuidance

__all__ = [
    "Labeled",
    "SemiSupervisedTrainer",
    "Terms",
    "TextGuidance",
    "Unlabeled",
    "nnUNetTrainerMeanTeacher",
    "nnUNetTrainerMeanTeacherText",
    "nnUNetTrainerPseudoLabel",
    "nnUNetTrainerSupervised",
    "nnUNetTrainerTextSemiSeg",
    "nnUNetTrainerVQSeg",
]
