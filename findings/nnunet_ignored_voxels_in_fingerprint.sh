#!/usr/bin/env bash
# nnU-Net's fingerprint takes the voxels of the ignore label for foreground.
#
# The ignore label marks what nobody annotated. It has the highest number of the labels, and the
# fingerprint samples intensities where the label is > 0: with sparse annotations most of what CT
# normalisation then calls foreground (its mean, deviation and clipping range) was never annotated.
#
# Seen with nnunetv2 2.8.1: one organ of 1,000 voxels at 100, 7,000 ignored voxels at -1000: the
# intensities that the fingerprint keeps have a mean below -800.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check nnunetv2==2.8.1 torch==2.13.0
env/bin/python - <<'PY'
import sys

import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
    DatasetFingerprintExtractor,
)

ORGAN, IGNORED = 1, 2
label = np.zeros((1, 30, 30, 30), np.int8)
label[:, :10, :10, :10] = ORGAN
label[:, 10:24, :25, :20] = IGNORED
image = np.where(label == ORGAN, 100.0, np.where(label == IGNORED, -1000.0, 0.0)).astype(np.float32)
_, statistics = DatasetFingerprintExtractor.collect_foreground_intensities(
    label, image, num_samples=1000
)
mean = float(statistics[0]["mean"])
print(f"organ at 100, mean of the fingerprint's foreground {mean:.1f}")
if not mean < -800:
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
