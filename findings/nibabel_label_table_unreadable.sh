#!/usr/bin/env bash
# nibabel: get_content() fails on a NIfTI label table (extension code 30) that was read from a file.
#
# TotalSegmentator, Connectome Workbench and others keep the names of label values in a NIfTI header
# extension of code 30 (Caret). For this code nibabel expects a parsed object with a method of its
# own, has none for what it reads, and raises NotImplementedError; ``content`` gives the bytes, from 5.3 on.
#
# Seen with nibabel 5.4.2; 5.2.1 returned the bytes from get_content().
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
for version in 5.2.1 5.4.2; do
    python3 -m venv "env_$version"
    "env_$version/bin/pip" install -q --disable-pip-version-check "nibabel==$version" "numpy<2.4"
    "env_$version/bin/python" - <<'PY'
import sys

import nibabel
import numpy as np

table = b'<LabelTable><Label Key="1">liver</Label></LabelTable>'
image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
image.header.extensions.append(nibabel.nifti1.Nifti1Extension(30, table))
nibabel.save(image, "labels.nii.gz")
extension = nibabel.load("labels.nii.gz").header.extensions[0]
try:
    seen = bytes(extension.get_content()).rstrip(b"\0")
except NotImplementedError:
    seen = "NotImplementedError"
print(f"nibabel {nibabel.__version__}: get_content() gives {seen}")
wanted = {"5.2.1": table, "5.4.2": "NotImplementedError"}
if seen != wanted[nibabel.__version__]:
    sys.exit("changed: the behaviour above is another one now")
PY
done
echo "as described"
