#!/usr/bin/env bash
# connected-components-3d: of a boolean mask, a background pixel gets the label of a component.
#
# With 8 neighbours in 2D, connected_components gives [0, 1, 2, 0, 2] for the boolean row
# [0, 1, 0, 0, 1]: the pixel behind the first component is 0 and gets the second's label. The same
# row as uint8, with 4 neighbours or as a column comes out right; masks of three rows of five pixels are hit,
# too. Labels of components are looked up by value, so the size of a component and what is kept as
# the largest one are wrong with it.
#
# Seen with connected-components-3d 4.1.1 and numpy 2.4.6.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check connected-components-3d==4.1.1 numpy==2.4.6
env/bin/python - <<'PY'
import sys

import cc3d
import numpy as np

row = [[0, 1, 0, 0, 1]]
seen = {}
for kind in (bool, np.uint8):
    for neighbours in (4, 8):
        labels = cc3d.connected_components(np.array(row, kind), connectivity=neighbours)
        seen[kind.__name__, neighbours] = labels[0].tolist()
        print(f"{kind.__name__}, {neighbours} neighbours: {labels[0].tolist()}")
masks = np.random.default_rng(0).random((1000, 3, 5)) < 0.4
wrong = sum(
    bool((cc3d.connected_components(mask, connectivity=8) > 0)[~mask].any()) for mask in masks
)
print(f"random masks of 3 x 5 pixels with a labeled background pixel: {wrong} of {len(masks)}")
right = [0, 1, 0, 0, 2]
expected = {("bool", 4): right, ("bool", 8): [0, 1, 2, 0, 2], ("uint8", 4): right, ("uint8", 8): right}
if seen != expected or not wrong:
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
