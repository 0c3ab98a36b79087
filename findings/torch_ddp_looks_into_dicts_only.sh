#!/usr/bin/env bash
# torch: distributed training does not see tensors of an output that are in another mapping than a dict.
#
# With find_unused_parameters=True DistributedDataParallel looks through what a network returns for
# what the loss may use. It looks into tuples, named tuples, lists, dicts and dataclasses, but not into a
# types.MappingProxyType (nor any other Mapping): parameters behind such a tensor are taken for unused, and when
# the loss does use it, backward fails with "Expected to mark a variable ready only once", which
# says nothing of the cause. The tensors that it does find are returned as copies, each of the size of the output.
#
# Seen with torch 2.13.0 on the CPU, in one process.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
env/bin/python - <<'PY'
import sys
from types import MappingProxyType

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class TwoHeads(nn.Module):
    """Return one layer's output, and another's in a mapping."""

    def __init__(self, mapping):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.mapping = mapping

    def forward(self, x):
        self.made = self.second(x)
        return self.first(x), self.mapping({"second": self.made})


dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
seen = {}
for mapping in (dict, MappingProxyType):
    network = DistributedDataParallel(TwoHeads(mapping), find_unused_parameters=True)
    first, further = network(torch.randn(2, 4))
    copied = further["second"].data_ptr() != network.module.made.data_ptr()
    try:
        (first.sum() + further["second"].sum()).backward()
        outcome = "trains"
    except RuntimeError as error:
        outcome = str(error).split(".")[0]
    seen[mapping.__name__] = outcome, copied
    print(f"{mapping.__name__}: {outcome}; the output is {'a copy' if copied else 'itself'}")
dist.destroy_process_group()
expected = {
    "dict": ("trains", True),
    "mappingproxy": ("Expected to mark a variable ready only once", False),
}
if seen != expected:
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
