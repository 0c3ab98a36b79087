#!/usr/bin/env bash
# nnU-Net: of batches of one patch, none is centred on foreground.
#
# oversample_foreground_percent is 0.33 and reads as a share of the patches. The loader takes a fixed number of each
# batch's last patches in its place, and rounds: half of them with two patches a batch, a quarter with
# four, none with one. Who sets batch_size to 1 in the plans because memory is short, trains small structures on what
# a random place happens to hold; nothing is printed. probabilistic_oversampling=True draws a third of them.
#
# Seen with nnunetv2 2.8.1 and torch 2.13.0: a structure of 2 x 2 x 2 in 48 x 48 x 48 voxels.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torch==2.13.0 nnunetv2==2.8.1
export nnUNet_raw=$folder nnUNet_preprocessed=$folder nnUNet_results=$folder
env/bin/python - <<'PY'
import sys

import numpy as np
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.label_handling.label_handling import LabelManager

label = np.zeros((1, 48, 48, 48), np.int16)
label[:, 30:32, 20:22, 10:12] = 1


class OneCase:
    """A data set of one preprocessed case, as nnU-Net's loader asks for it."""

    identifiers = ["case"]

    def load_case(self, identifier):
        places = {1: np.argwhere(label == 1)}
        return np.zeros(label.shape, np.float32), label, None, {"class_locations": places}


labels = LabelManager({"background": 0, "nodule": 1}, None)


def share_with_foreground(batch_size, probabilistic=False):
    loader = nnUNetDataLoader(
        OneCase(), batch_size, (8, 8, 8), (8, 8, 8), labels,
        oversample_foreground_percent=0.33, probabilistic_oversampling=probabilistic)
    patches = [patch for _ in range(400 // batch_size) for patch in next(loader)["target"]]
    return sum(bool((patch == 1).any()) for patch in patches) / len(patches)


np.random.seed(0)
seen = {size: share_with_foreground(size) for size in (1, 2, 4)}
drawn = share_with_foreground(1, probabilistic=True)
for size, share in seen.items():
    print(f"{size} patches a batch: the structure is in {100 * share:.0f} % of the patches")
print(f"1 patch a batch, probabilistic: {100 * drawn:.0f} %")
if seen[1] > 0.05 or not 0.47 < seen[2] < 0.55 or not 0.23 < seen[4] < 0.31 or not 0.26 < drawn < 0.42:
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
