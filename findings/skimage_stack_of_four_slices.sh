#!/usr/bin/env bash
# scikit-image: a 3D TIFF of three or four slices comes out with its first axis last.
#
# ``skimage.io.imread`` takes a first axis of 3 or 4 for colours and moves it to the end, whatever the
# TIFF says (photometric MinIsBlack, one sample a pixel, a page a slice). nnU-Net 2.8.1 tries this
# reader before its own for 3D TIFF: a stack of four slices becomes one picture of four channels.
#
# Seen with scikit-image 0.26.0 and tifffile 2026.3.3.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check scikit-image==0.26.0 tifffile==2026.3.3 numpy==2.4.6
env/bin/python - <<'PY'
import sys

import numpy as np
import tifffile
from skimage import io

seen = {}
for slices in (4, 5):
    tifffile.imwrite("stack.tif", np.zeros((slices, 20, 30), np.uint8), photometric="minisblack")
    seen[slices] = io.imread("stack.tif").shape
print(f"stacks of 4 and 5 slices of 20 x 30: {seen[4]} and {seen[5]}")
if seen != {4: (20, 30, 4), 5: (5, 20, 30)}:
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
