#!/usr/bin/env bash
# torch: InstanceNorm3d and softmax give plain memory back, whatever order their input has.
#
# channels_last_3d is said to pass through a network from the weights on. Convolutions, LeakyReLU,
# BatchNorm3d, GroupNorm, linear interpolation and concatenation keep it; InstanceNorm3d, which
# stands behind every convolution of nnU-Net, returns a tensor in plain order, so that each block
# reorders its activations twice. softmax over the channels and grid_sample do the same.
#
# Seen with torch 2.13.0 on the CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torch==2.13.0
env/bin/python - <<'PY'
import sys

import torch
from torch import nn

order = torch.channels_last_3d
x = torch.randn(2, 8, 6, 7, 8).to(memory_format=order)
grid = torch.rand(2, 6, 7, 8, 3)
results = {
    "Conv3d": (nn.Conv3d(8, 8, 3, padding=1).to(memory_format=order)(x), True),
    "LeakyReLU": (nn.LeakyReLU()(x), True),
    "BatchNorm3d": (nn.BatchNorm3d(8)(x), True),
    "GroupNorm": (nn.GroupNorm(2, 8)(x), True),
    "interpolate": (nn.functional.interpolate(x, scale_factor=2, mode="trilinear"), True),
    "InstanceNorm3d": (nn.InstanceNorm3d(8)(x), False),
    "softmax": (x.softmax(1), False),
    "grid_sample": (nn.functional.grid_sample(x, grid, align_corners=False), False),
}
changed = False
for name, (output, kept) in results.items():
    seen = output.is_contiguous(memory_format=order)
    print(f"{name}: {'kept' if seen else 'plain'}")
    changed |= seen != kept
if changed:
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
