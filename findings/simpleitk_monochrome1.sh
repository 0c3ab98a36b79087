#!/usr/bin/env bash
# SimpleITK turns the grey values of a MONOCHROME1 DICOM file round, and applies the rescale afterwards.
#
# PhotometricInterpretation says how to display a value (MONOCHROME1: the lowest is white), not
# what it means: DICOM PS3.3 C.7.6.3.1.2 and C.11.1 give stored value x slope + intercept for both.
# A CT stored that way therefore comes out of SimpleITK with mirrored Hounsfield units.
#
# Seen with SimpleITK 2.5.7 and pydicom 3.0.2: pydicom gives 0, 1, 2; SimpleITK -1, -2, -3 for
# signed voxels, and 65535, 65534, 65533 for unsigned ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.4.6
env/bin/python - <<'PY'
import sys

import numpy as np
import pydicom
import SimpleITK
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def write(path, signed):
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Modality, data.PhotometricInterpretation = "CT", "MONOCHROME1"
    data.Rows, data.Columns, data.SamplesPerPixel = 1, 3, 1
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelRepresentation = int(signed)
    data.RescaleSlope, data.RescaleIntercept = "1", "0"
    data.PixelSpacing, data.ImageOrientationPatient = [1, 1], [1, 0, 0, 0, 1, 0]
    data.ImagePositionPatient = [0, 0, 0]
    data.PixelData = np.array([0, 1, 2], "<i2" if signed else "<u2").tobytes()
    data.save_as(path, enforce_file_format=True)


wanted = {True: [-1, -2, -3], False: [65535, 65534, 65533]}
for signed in (True, False):
    write("one.dcm", signed)
    standard = pydicom.dcmread("one.dcm").pixel_array.ravel().tolist()
    itk = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("one.dcm")).ravel().tolist()
    print(f"signed={signed}: pydicom {standard}, SimpleITK {itk}")
    if standard != [0, 1, 2] or itk != wanted[signed]:
        sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
