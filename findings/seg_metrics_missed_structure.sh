#!/usr/bin/env bash
# seg-metrics gives a structure that the prediction misses altogether a Hausdorff distance of 0.0 mm.
#
# 0 is the distance of a perfect prediction: averaged over cases, a model gets better with every
# structure that it misses. MONAI gives nan for the 95th percentile here, which a mean over the
# other cases leaves out, to the same effect.
#
# Seen with seg-metrics 1.2.8: Dice 0.0 and HD95 0.0 for an empty prediction of a 64-voxel cube.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check seg-metrics==1.2.8
env/bin/python - <<'PY'
import sys

import numpy as np
from seg_metrics import seg_metrics

reference = np.zeros((12, 12, 12), np.uint8)
reference[4:8, 4:8, 4:8] = 1
missed = np.zeros_like(reference)
result = seg_metrics.write_metrics(
    labels=[1], gdth_img=reference, pred_img=missed, metrics=["dice", "hd95"]
)
result = result[0] if isinstance(result, list) else result
dice, hd95 = float(result["dice"][0]), float(result["hd95"][0])
print(f"missed structure: Dice {dice}, HD95 {hd95} mm")
if dice != 0.0 or hd95 != 0.0:
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
