#!/usr/bin/env bash
# A NIfTI file with a sform alone: SimpleITK takes the axes from it, but the voxel size from pixdim.
#
# The NIfTI-1 standard (method 3) takes everything from the sform when sform_code > 0; pixdim is for
# method 2, the qform. nibabel writes files in which the two differ: ``set_sform`` on an image that
# was made without an affine leaves pixdim at 1. nibabel then reads 2 x 2 x 3 mm from such a file, and
# SimpleITK, which nnU-Net reads with, 1 x 1 x 1 mm: spacing, plan and distances in mm are wrong.
#
# Seen with nibabel 5.4.2 and SimpleITK 2.5.7.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.4.6
env/bin/python - <<'PY'
import sys

import nibabel
import numpy as np
import SimpleITK

image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
image.set_sform(np.diag([2.0, 2.0, 3.0, 1.0]), code=1)
nibabel.save(image, "scan.nii.gz")

by_affine = nibabel.affines.voxel_sizes(nibabel.load("scan.nii.gz").affine).tolist()
by_itk = list(SimpleITK.ReadImage("scan.nii.gz").GetSpacing())
print(f"nibabel's affine {by_affine} mm, SimpleITK {by_itk} mm")
if by_affine != [2.0, 2.0, 3.0] or by_itk != [1.0, 1.0, 1.0]:
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
