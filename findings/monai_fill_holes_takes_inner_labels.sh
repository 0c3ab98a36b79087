#!/usr/bin/env bash
# MONAI: FillHoles deletes a structure that lies within another one, as a tumor in its organ.
#
# Its documentation calls a hole "a background pixel/voxel which is only enclosed by a single class". What it
# fills is everything that a label encloses: of a liver (1) with a tumor (2) in it, without any hole, no tumor
# is left. In one-hot form the tumor stays, but is liver as well. The tensor that is given is changed with it,
# so that there is nothing left to compare with.
#
# Seen with MONAI 1.6.1 and torch 2.13.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check monai==1.6.1 torch==2.13.0 scipy
env/bin/python - <<'PY'
import sys

import torch
from monai.transforms import FillHoles

liver_and_tumor = torch.zeros(1, 12, 12, 12)
liver_and_tumor[:, 1:11, 1:11, 1:11] = 1
liver_and_tumor[:, 4:7, 4:7, 4:7] = 2
one_hot = torch.cat([liver_and_tumor == label for label in range(3)]).float()


def voxels(labels):
    return [int((labels == label).sum()) for label in range(3)]


before = voxels(liver_and_tumor)
given = liver_and_tumor.clone()
after = voxels(FillHoles()(given))
both = int((FillHoles()(one_hot.clone())[1:].sum(0) == 2).sum())
print(f"background, liver, tumor: {before} before, {after} after, {voxels(given)} in what was given")
print(f"one-hot: {both} voxels that are liver and tumor")
if before != [728, 973, 27] or after != [728, 1000, 0] or voxels(given) != after or both != 27:
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
