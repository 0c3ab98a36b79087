#!/usr/bin/env bash
# nnU-Net: start weights that were trained on a GPU cannot be used on a machine without one.
#
# nnUNetv2_train -pretrained_weights reads the file by torch.load without map_location, outside of
# distributed trainings, so that every tensor goes back to the device that it was saved from.
# Continuing a training (--c) and predicting from the very same file work.
#
# Seen with nnunetv2 2.8.1, torch 2.13.0 on a machine without a GPU; that the file comes from one is
# what its storages are labeled with.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torch==2.13.0 nnunetv2==2.8.1
export nnUNet_raw=$folder nnUNet_preprocessed=$folder nnUNet_results=$folder CUDA_VISIBLE_DEVICES=
env/bin/python - <<'PY'
import sys
from unittest import mock

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

network = PlainConvUNet(
    1, 2, [4, 8], torch.nn.Conv3d, 3, [1, 2], 1, 2, 1, norm_op=torch.nn.InstanceNorm3d
)
content = {"network_weights": network.state_dict()}
torch.save(content, "host.pth")
with mock.patch.object(torch.serialization, "location_tag", lambda storage: "cuda:0"):
    torch.save(content, "gpu.pth")
outcomes = {}
for name in ("host.pth", "gpu.pth"):
    try:
        load_pretrained_weights(network, name)
        outcomes[name] = "loaded"
    except RuntimeError as error:
        outcomes[name] = f"RuntimeError: {str(error)[:70]}"
    print(f"start weights {name}: {outcomes[name]}")
elsewhere = torch.load("gpu.pth", map_location="cpu", weights_only=False)
print("the same file read for the host:", len(elsewhere["network_weights"]), "tensors")
if outcomes["host.pth"] != "loaded" or "deserialize object on a CUDA" not in outcomes["gpu.pth"]:
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
