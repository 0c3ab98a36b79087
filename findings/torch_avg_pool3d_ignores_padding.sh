#!/usr/bin/env bash
# torch: avg_pool3d refuses a map that is shorter than the window, although padding makes it long enough.
#
# avg_pool1d, avg_pool2d and max_pool3d look at the padded length; avg_pool3d at the length alone. A
# mean over 3 voxels with padding 1, which keeps every size, so fails on the deepest maps of a
# 3D U-Net, whose axes are 1 or 2 voxels long for small patches, and works in 2D and everywhere else.
#
# Seen with torch 2.13.0 and 2.14.1 on the CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torch==2.13.0
env/bin/python - <<'PY'
import sys

import torch
from torch.nn import functional as F

calls = {
    "avg_pool1d": (F.avg_pool1d, 1, True),
    "avg_pool2d": (F.avg_pool2d, 2, True),
    "max_pool3d": (F.max_pool3d, 3, True),
    "avg_pool3d": (F.avg_pool3d, 3, False),
}
changed = False
for name, (pool, dims, expected) in calls.items():
    try:
        shape = tuple(pool(torch.ones(1, 1, *[2] * dims), 3, 1, 1).shape)
        works, seen = True, f"gives {shape}"
    except RuntimeError as error:
        works, seen = False, f"RuntimeError: {error}"
    print(f"{name} of a map of 2 voxels an axis, window 3, padding 1: {seen}")
    changed |= works != expected
if changed:
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
