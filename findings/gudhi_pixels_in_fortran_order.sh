#!/usr/bin/env bash
# gudhi: pairs of a CubicalComplex name pixels by numbers in Fortran order, whatever the array's.
#
# The docstring of vertices_of_persistence_pairs() says "indices in the input list of vertices". One
# expects the index into the array that was given, as numpy counts: a map with one peak at row 1,
# column 1 of 4 rows and 5 columns is born at 1 * 5 + 1 = 6. It says 5, which is 1 + 1 * 4. Used as
# C order the number names another pixel, in silence, and on square maps always one that exists.
#
# Seen with gudhi 3.13.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check gudhi==3.13.0 numpy==2.3.5
env/bin/python - <<'PY'
import sys

import gudhi
import numpy as np

rows, columns = 4, 5
height = np.zeros((rows, columns))
height[1, 1] = 1
assert height.flags["C_CONTIGUOUS"]
complex_ = gudhi.CubicalComplex(vertices=1 - height)
complex_.compute_persistence()
births = [int(number) for number in np.concatenate([np.ravel(b) for b in complex_.vertices_of_persistence_pairs()[1]])]
seen = births[0]
in_c, in_fortran = (int(np.ravel_multi_index((1, 1), height.shape, order=o)) for o in "CF")
print(f"peak at (1, 1): born at {seen}; C order {in_c}, Fortran order {in_fortran}")
if seen != in_fortran:
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
