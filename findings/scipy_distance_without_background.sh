#!/usr/bin/env bash
# SciPy: where nothing is background, distance_transform_edt measures to a point outside of the array.
#
# A patch that lies wholly within an organ has no boundary, and one expects infinity, 0 or an error. SciPy gives
# finite distances to the place one before the first index of the first axis: 1.0 in one corner, growing with the
# rows, all of them plausible, and turned round with the array. Signed distance maps as targets (DTC, boundary
# losses) and distances to a surface that is not there are wrong with it, in silence. edt gives infinity,
# and scipy's own distance_transform_cdt -1.
#
# Seen with SciPy 1.17.1, edt 3.1.2 and numpy 2.3.5.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check scipy==1.17.1 edt==3.1.2 numpy==2.3.5
env/bin/python - <<'PY'
import sys

import edt
import numpy as np
from scipy.ndimage import distance_transform_cdt, distance_transform_edt

filled = np.ones((8, 16, 16), bool)
place = np.indices(filled.shape)
place[0] += 1
outside = np.sqrt((place**2).sum(0))
found, other = distance_transform_edt(filled), edt.edt(filled)
chamfer = distance_transform_cdt(filled)
print(f"scipy, Euclidean: {found.min()} at index 0, up to {found.max():.1f}; edt: {other.min()}; "
      f"scipy, chamfer: {chamfer.min()} to {chamfer.max()}")
if not np.allclose(found, outside) or not np.isinf(other).all() or (chamfer != -1).any():
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
