#!/usr/bin/env bash
# torch: with checkpoint(), batch normalisation counts every batch twice, and predicts otherwise.
#
# torch.utils.checkpoint trades time for memory and restores the random state, so that "the same numbers"
# is what one expects. The second run in the backward pass is one in training mode: BatchNorm3d moves its running mean
# and variance again, with either value of use_reentrant. Losses and gradients are equal to the last bit,
# so that a training looks the same; what differs are the statistics that eval() normalises with.
#
# Seen with torch 2.13.0 on the CPU: after one batch of mean 5 the running mean is 0.96 instead of 0.5.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
env/bin/python - <<'PY'
import copy
import sys

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

torch.manual_seed(0)
scan = torch.randn(2, 1, 8, 8, 8) + 5
block = nn.Sequential(nn.BatchNorm3d(1), nn.LeakyReLU(), nn.Conv3d(1, 2, 3, padding=1))


def step(again, **how):
    """Return gradient, running mean, batches counted and the prediction after one step."""
    network = copy.deepcopy(block)
    image = scan.clone().requires_grad_()
    output = checkpoint(network, image, **how) if again else network(image)
    output.square().mean().backward()
    norm = network[0]
    with torch.no_grad():
        predicted = network.eval()(scan)
    return network[2].weight.grad, float(norm.running_mean), int(norm.num_batches_tracked), predicted


gradient, mean, batches, predicted = step(False)
print(f"plain: running mean {mean:.2f} after {batches} batch")
changed = batches != 1 or not 0.45 < mean < 0.55
for reentrant in (False, True):
    found, mean, batches, other = step(True, use_reentrant=reentrant)
    apart = float((other - predicted).abs().max())
    print(f"checkpoint(use_reentrant={reentrant}): running mean {mean:.2f} after {batches} batches, "
          f"equal gradients: {torch.equal(found, gradient)}, prediction differs by up to {apart:.2f}")
    changed |= batches != 2 or not 0.9 < mean < 1.0 or not torch.equal(found, gradient) or apart < 0.01
if changed:
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
