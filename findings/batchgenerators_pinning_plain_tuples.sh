#!/usr/bin/env bash
# With pinned memory, named tuples and torch.Size in a batch arrive as plain tuples.
#
# nnU-Net's loader pins batches where the training runs on a GPU. batchgenerators then walks through
# each batch and builds every tuple anew by tuple(...), whatever its class: fields of a named tuple
# and numel() of a torch.Size are gone. A loader that sends either works on every machine without a
# GPU and with zero workers, and fails in the first batch on a GPU. torch's own pinning, of
# torch.utils.data, keeps named tuples.
#
# Seen with batchgenerators 0.25.5, torch 2.13.0. The batch here holds no tensor, so that the walk
# needs no GPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check batchgenerators==0.25.5 torch==2.13.0
cat > pin.py <<'PY'
import sys
from typing import NamedTuple

import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import (
    pin_memory_of_all_eligible_items_in_dict,
)
from torch.utils.data._utils.pin_memory import pin_memory


class Window(NamedTuple):
    """Where a patch lies."""

    first: int
    last: int


def batch():
    return {"window": Window(2, 5), "size": torch.Size([1, 4, 6])}


found = pin_memory_of_all_eligible_items_in_dict(batch())
kinds = {name: type(value).__name__ for name, value in found.items()}
torchs = type(pin_memory(batch())["window"]).__name__
print(f"sent Window and torch.Size; batchgenerators gives {kinds}, torch a {torchs}")
if kinds != {"window": "tuple", "size": "tuple"} or torchs != "Window":
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
env/bin/python pin.py
