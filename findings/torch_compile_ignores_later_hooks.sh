#!/usr/bin/env bash
# torch: a compiled network does not see a forward hook that is registered after its first call.
#
# torch.compile takes the hooks that are there when it traces a module, and guards neither their number nor
# what they are: one registered or removed later has no effect, without a word, and the network computes on as before.
# Whether dropout, a perturbation or a probe that works by hooks acts thus depends on when it was added. torch's
# documentation of modules in torch.compile says so, and names the switch
# torch._dynamo.config.skip_nnmodule_hook_guards = False, after which later hooks act.
#
# Seen with torch 2.13.0 on the CPU, with the backend "eager", which compiles nothing further.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
env/bin/python - <<'PY'
import sys

import torch
from torch import nn


def zeroed(module, inputs, output):
    return 0 * output


def acts(later, guarded=False):
    """Tell whether a hook that zeroes the output acts in a compiled layer."""
    torch.compiler.reset()
    torch._dynamo.config.skip_nnmodule_hook_guards = not guarded
    network = nn.Sequential(nn.Linear(3, 3))
    compiled = torch.compile(network, backend="eager")
    x = torch.ones(1, 3)
    if later:
        compiled(x)
    network[0].register_forward_hook(zeroed)
    return not compiled(x).any() and not network(x).any()


seen = {
    "before the first call": acts(later=False),
    "after it": acts(later=True),
    "after it, with guards of hooks": acts(later=True, guarded=True),
}
for when, does in seen.items():
    print(f"hook registered {when}: {'acts' if does else 'is ignored'}")
if list(seen.values()) != [True, False, True]:
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
