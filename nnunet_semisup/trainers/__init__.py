"""The trainers, one method a file, and what a trainer of one's own is made from."""

from nnunet_semisup.trainers.abd import nnUNetTrainerABD
from nnunet_semisup.trainers.arco import nnUNetTrainerARCO
from nnunet_semisup.trainers.bcp import nnUNetTrainerBCP
from nnunet_semisup.trainers.bsnet import nnUNetTrainerBSNet
from nnunet_semisup.trainers.cps import nnUNetTrainerCPS
from nnunet_semisup.trainers.dkuxnet import nnUNetTrainerDKUXNet
from nnunet_semisup.trainers.dtc import nnUNetTrainerDTC
from nnunet_semisup.trainers.dtc_text import nnUNetTrainerDTCText
from nnunet_semisup.trainers.fixmatch import nnUNetTrainerFixMatch
from nnunet_semisup.trainers.gaussian_field import nnUNetTrainerGaussianField
from nnunet_semisup.trainers.graphseg import nnUNetTrainerGraphSeg
from nnunet_semisup.trainers.home import nnUNetTrainerHoME
from nnunet_semisup.trainers.lomix import nnUNetTrainerLoMix
from nnunet_semisup.trainers.match import nnUNetTrainerMATCH
from nnunet_semisup.trainers.mcf import nnUNetTrainerMCF
from nnunet_semisup.trainers.mcnet import nnUNetTrainerMCNet, nnUNetTrainerMCNetPlus
from nnunet_semisup.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_semisup.trainers.mean_teacher_text import nnUNetTrainerMeanTeacherText
from nnunet_semisup.trainers.mlrp import nnUNetTrainerMLRP
from nnunet_semisup.trainers.nsda import nnUNetTrainerNSDA
from nnunet_semisup.trainers.pseudo_label import nnUNetTrainerPseudoLabel
from nnunet_semisup.trainers.semisup import nnUNetTrainerSemiSup
from nnunet_semisup.trainers.ssnet import nnUNetTrainerSSNet
from nnunet_semisup.trainers.supervised import nnUNetTrainerSupervised
from nnunet_semisup.trainers.text_semiseg import nnUNetTrainerTextSemiSeg
from nnunet_semisup.trainers.uamt import nnUNetTrainerUAMT
from nnunet_semisup.trainers.uamt_text import nnUNetTrainerUAMTText
from nnunet_semisup.trainers.unimatch import nnUNetTrainerUniMatch
from nnunet_semisup.trainers.urpc import nnUNetTrainerURPC
from nnunet_semisup.trainers.vclipseg import nnUNetTrainerVCLIPSeg
from nnunet_semisup.trainers.vqseg import nnUNetTrainerVQSeg
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.semi_supervised import SemiSupervisedTrainer
from nnunet_semisup.training.teacher import TeacherTrainer
from nnunet_semisup.training.text_guidance import TextGuidance

__all__ = [
    "Labeled",
    "SemiSupervisedTrainer",
    "TeacherTrainer",
    "Terms",
    "TextGuidance",
    "Unlabeled",
    "nnUNetTrainerABD",
    "nnUNetTrainerARCO",
    "nnUNetTrainerBCP",
    "nnUNetTrainerBSNet",
    "nnUNetTrainerCPS",
    "nnUNetTrainerDKUXNet",
    "nnUNetTrainerDTC",
    "nnUNetTrainerDTCText",
    "nnUNetTrainerFixMatch",
    "nnUNetTrainerGaussianField",
    "nnUNetTrainerGraphSeg",
    "nnUNetTrainerHoME",
    "nnUNetTrainerLoMix",
    "nnUNetTrainerMATCH",
    "nnUNetTrainerMCF",
    "nnUNetTrainerMCNet",
    "nnUNetTrainerMCNetPlus",
    "nnUNetTrainerMLRP",
    "nnUNetTrainerMeanTeacher",
    "nnUNetTrainerMeanTeacherText",
    "nnUNetTrainerNSDA",
    "nnUNetTrainerPseudoLabel",
    "nnUNetTrainerSSNet",
    "nnUNetTrainerSemiSup",
    "nnUNetTrainerSupervised",
    "nnUNetTrainerTextSemiSeg",
    "nnUNetTrainerUAMT",
    "nnUNetTrainerUAMTText",
    "nnUNetTrainerURPC",
    "nnUNetTrainerUniMatch",
    "nnUNetTrainerVCLIPSeg",
    "nnUNetTrainerVQSeg",
]
