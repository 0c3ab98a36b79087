#!/usr/bin/env bash
# scikit-image: in 3D, skeletonize() deletes compact pieces altogether.
#
# A skeleton is said to keep the topology, so every piece should keep a voxel. A cube of 2 or 4
# voxels a side, and a rod of 2 x 2 x 8, have none left; 3 or 5 a side keep one. Measures of vessels
# that ask which part of a skeleton is hit (clDice, skeleton recall) then do not see such a piece,
# or divide by zero. In 2D the same squares and bars keep theirs.
#
# Seen with scikit-image 0.26.0 (its issue 3757).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check scikit-image==0.26.0 numpy==2.3.5
env/bin/python - <<'PY'
import sys

import numpy as np
from skimage.morphology import skeletonize

expected = {
    (2, 2, 2): True,
    (3, 3, 3): False,
    (4, 4, 4): True,
    (5, 5, 5): False,
    (2, 2, 8): True,
    (2, 2): False,
    (4, 4): False,
    (2, 8): False,
}
changed = False
for shape, vanishes in expected.items():
    left = int(skeletonize(np.pad(np.ones(shape, bool), 2)).sum())
    print(f"{' x '.join(map(str, shape))}: {left} in the skeleton")
    changed |= (left == 0) != vanishes
if changed:
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
