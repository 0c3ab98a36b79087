#!/usr/bin/env bash
# highdicom: the slice distance of a DICOM SEG becomes that of the frames that are there.
#
# A SEG usually leaves out frames without a segment, and SpacingBetweenSlices is optional in it. If a structure
# is in every third slice of 1 mm, get_volume() then gives a volume of three slices at 3 mm, without a word;
# SliceThickness (1 mm) is not looked at. Beside its scan the label has another size and another voxel size.
#
# Seen with highdicom 0.28.2 and pydicom 3.0.2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check "highdicom==0.28.2" "pydicom==3.0.2" "numpy<2.5"
env/bin/python - <<'PY'
import sys

import highdicom
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian


def ct_slice(number):
    """One of twelve slices at a distance of 1 mm."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, f"1.2.3.{number + 1}"
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = "1.2.4", "1.2.5", "1.2.6"
    made.Modality, made.PatientID, made.SeriesNumber, made.InstanceNumber = "CT", "P1", 1, number + 1
    for keyword in ("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(made, keyword, "")
    made.StudyDate = made.StudyTime = made.ReferringPhysicianName = ""
    made.ImagePositionPatient, made.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
    made.PixelSpacing, made.SliceThickness = [1, 1], 1
    made.Rows = made.Columns = 8
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation, made.SamplesPerPixel = 15, 0, 1
    made.PhotometricInterpretation, made.PixelData = "MONOCHROME2", bytes(128)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


mask = np.zeros((12, 8, 8), np.uint8)
mask[[2, 5, 8], 2:5, 2:5] = 1
liver = highdicom.seg.SegmentDescription(1, "liver", codes.SCT.Organ, codes.SCT.Liver, "MANUAL")
written = highdicom.seg.Segmentation(
    [ct_slice(number) for number in range(12)], mask, "BINARY", [liver],
    highdicom.UID(), 2, highdicom.UID(), 1, "none", "none", "0", "0")
spacing = {"with SpacingBetweenSlices": written.get_volume().spacing[0]}
del written.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices
written.save_as("seg.dcm")
spacing["without"] = highdicom.seg.segread("seg.dcm").get_volume().spacing[0]
print(f"highdicom {highdicom.__version__}: slice distance {spacing}, written from slices of 1 mm")
if spacing != {"with SpacingBetweenSlices": 1.0, "without": 3.0}:
    sys.exit("changed: the behaviour above is another one now")
PY
echo "as described"
