#!/usr/bin/env bash
# SimpleITK: a NIfTI file with scl_slope 0 has its scl_inter added.
#
# The NIfTI-1 standard: "If the scl_slope field is nonzero, then each voxel value in the dataset
# should be scaled"; with 0 the values count as stored, and so nibabel reads them. SimpleITK, which
# nnU-Net reads with, takes the slope for 1 and adds the intercept.
#
# Seen with SimpleITK 2.5.7 and nibabel 5.4.2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.4.6
env/bin/python - <<'PY'
import struct
import sys

import nibabel
import numpy as np
import SimpleITK

nibabel.save(nibabel.Nifti1Image(np.full((3, 4, 5), 7, np.int16), np.eye(4)), "scan.nii")
with open("scan.nii", "r+b") as file:
    file.seek(112)
    file.write(struct.pack("<2f", 0, 5))

by_nibabel = float(nibabel.load("scan.nii").get_fdata().max())
by_itk = float(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("scan.nii")).max())
print(f"stored 7, scl_slope 0, scl_inter 5: nibabel {by_nibabel:g}, SimpleITK {by_itk:g}")
if (by_nibabel, by_itk) != (7.0, 12.0):
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
