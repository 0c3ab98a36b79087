#!/usr/bin/env bash
# nnU-Net: with nnUNet_n_proc_DA=0, which its trainer takes for "no background workers", planning fails.
#
# The variable is documented as the number of processes for data augmentation, and 0 is a value that
# nnUNetTrainer has a branch of its own for (single-threaded augmentation, as one uses for debugging
# and for runs that can be repeated). But the planner hands the same number to torch as its number of
# threads while it estimates a network's memory, and torch takes none below 1: a machine on which the
# variable is exported can train and predict, but not plan.
#
# Seen with nnunetv2 2.8.1 and torch 2.13.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torch==2.13.0 nnunetv2==2.8.1
export nnUNet_raw=$folder/raw nnUNet_preprocessed=$folder/pre nnUNet_results=$folder/res
mkdir -p "$nnUNet_raw" "$nnUNet_preprocessed" "$nnUNet_results"
cat > estimate.py <<'PY'
import os
import sys

from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)

network = {
    "n_stages": 2,
    "features_per_stage": [4, 8],
    "conv_op": "torch.nn.modules.conv.Conv2d",
    "kernel_sizes": [[3, 3], [3, 3]],
    "strides": [[1, 1], [2, 2]],
    "n_conv_per_stage": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
try:
    size = ExperimentPlanner.static_estimate_VRAM_usage(
        (16, 16),
        1,
        2,
        "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        network,
        ("conv_op", "norm_op", "dropout_op", "nonlin"),
    )
    seen = f"estimate {size}"
except RuntimeError as error:
    seen = f"RuntimeError: {error}"
print(f"nnUNet_n_proc_DA={os.environ['nnUNet_n_proc_DA']}: {seen}")
sys.exit("RuntimeError" in seen)
PY
nnUNet_n_proc_DA=1 env/bin/python estimate.py
if nnUNet_n_proc_DA=0 env/bin/python estimate.py; then
    echo "changed: the behaviour above is another one now" >&2
    exit 1
fi
echo "as described"
