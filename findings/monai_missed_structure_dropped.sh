#!/usr/bin/env bash
# MONAI leaves a structure that a prediction misses out of the mean, for the 95th percentile alone.
#
# HausdorffDistanceMetric gives inf for an empty prediction, which shows in any mean. With
# percentile=95 it gives nan, and aggregate() averages the other cases: a model that finds one of two
# tumors within 1 mm and misses the other has an HD95 of 1.0 mm.
#
# Seen with MONAI 1.6.1 and torch 2.13.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check monai==1.6.1 torch==2.13.0 scipy
env/bin/python - <<'PY'
import math
import sys

import numpy as np
import torch
from monai.metrics import HausdorffDistanceMetric

reference = np.zeros((10, 10, 10), np.uint8)
reference[2:6, 2:6, 2:6] = 1


def one_hot(mask):
    return torch.from_numpy(np.stack([mask == 0, mask == 1])[None]).float()


def mean_over_two_cases(percentile):
    metric = HausdorffDistanceMetric(
        include_background=False, percentile=percentile, reduction="mean"
    )
    metric(one_hot(np.roll(reference, 1, 0)), one_hot(reference))
    metric(one_hot(np.zeros_like(reference)), one_hot(reference))
    return float(metric.aggregate())


whole, percentile = mean_over_two_cases(None), mean_over_two_cases(95)
print(f"one case 1 voxel off, one missed: HD {whole}, HD95 {percentile}")
if not math.isinf(whole) or percentile != 1.0:
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
