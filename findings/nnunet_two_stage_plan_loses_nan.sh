#!/usr/bin/env bash
# nnU-Net plans a network of two stages for very small images, and its loss is NaN from the first step.
#
# The lowest output of deep supervision has the weight 0; with two stages it is the only one, and
# the weights are divided by their sum: 0 / 0. Nothing says so before the first epoch. 15 voxels a
# side are planned as 16 and get three stages, so that 12 x 12 x 12 fails and 15 x 15 x 15 does not.
#
# Seen with nnunetv2 2.8.1 and torch 2.13.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check nnunetv2==2.8.1 torch==2.13.0
cat > weights.py <<'PY'
import math
import os
import sys
from pathlib import Path

for name in ("raw", "preprocessed", "results"):
    Path(name).mkdir(exist_ok=True)
    os.environ[f"nnUNet_{name}"] = os.path.abspath(name)

import numpy as np
import SimpleITK
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json

DATASETS = {12: 1, 15: 2}


def write(size, number):
    """Five cases of a cube in an image of ``size`` voxels a side."""
    folder = Path("raw") / f"Dataset{number:03d}_Cube"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for case in range(5):
        label = np.zeros((size,) * 3, np.uint8)
        label[3:8, 3:8, 3:8] = 1
        noise = np.random.default_rng(case).normal(size=label.shape)
        image = (label + 0.1 * noise).astype(np.float32)
        for part, array, end in (("imagesTr", image, "_0000"), ("labelsTr", label, "")):
            path = folder / part / f"case_{case}{end}.nii.gz"
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path))
    content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "cube": 1}}
    save_json({**content, "numTraining": 5, "file_ending": ".nii.gz"}, str(folder / "dataset.json"))


def main():
    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
    )
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    for size, number in DATASETS.items():
        write(size, number)
    extract_fingerprints(list(DATASETS.values()), num_processes=1)
    plan_experiments(list(DATASETS.values()))
    seen = {}
    for size, number in DATASETS.items():
        plans = load_json(f"preprocessed/Dataset{number:03d}_Cube/nnUNetPlans.json")
        plans["continue_training"] = False
        content = load_json(f"raw/Dataset{number:03d}_Cube/dataset.json")
        trainer = nnUNetTrainer(plans, "3d_fullres", "all", content, torch.device("cpu"))
        seen[size] = [float(weight) for weight in trainer._build_loss().weight_factors]
    for size, weights in seen.items():
        print(f"images of {size} voxels a side: weights of the outputs {weights}")
    if not (len(seen[12]) == 1 and math.isnan(seen[12][0]) and seen[15] == [1.0, 0.0]):
        sys.exit("changed: the behaviour above is another one now")
    print("as described")


if __name__ == "__main__":
    main()
PY
env/bin/python weights.py
