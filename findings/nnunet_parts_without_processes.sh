#!/usr/bin/env bash
# nnU-Net: without background processes, every part of a prediction predicts all cases.
#
# nnUNetv2_predict -num_parts N -part_id I is to predict the I-th of N parts of a folder. With
# -npp 0 -nps 0 ("Running in non-multiprocessing mode") both arguments are dropped: each of N jobs
# predicts everything, into one folder.
#
# Seen with nnunetv2 2.8.1, torch 2.13.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torch==2.13.0 nnunetv2==2.8.1
export nnUNet_raw=$folder nnUNet_preprocessed=$folder
export nnUNet_results=$folder/results CUDA_VISIBLE_DEVICES= PATH=$folder/env/bin:$PATH
env/bin/python - <<'PY'
import json
from pathlib import Path

import numpy as np
import SimpleITK
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet

settings = {
    "n_stages": 2,
    "features_per_stage": [4, 8],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[3, 3, 3]] * 2,
    "strides": [[1, 1, 1], [2, 2, 2]],
    "n_conv_per_stage": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
resampling = {"order": 1, "order_z": 0, "force_separate_z": None, "is_seg": False}
configuration = {
    "data_identifier": "x",
    "preprocessor_name": "DefaultPreprocessor",
    "batch_size": 2,
    "patch_size": [8, 8, 8],
    "median_image_size_in_voxels": [8, 8, 8],
    "spacing": [1.0, 1.0, 1.0],
    "normalization_schemes": ["ZScoreNormalization"],
    "use_mask_for_norm": [False],
    "batch_dice": False,
    **{f"resampling_fn_{n}": "resample_data_or_seg_to_shape" for n in ("data", "seg")},
    **{f"resampling_fn_{n}_kwargs": resampling for n in ("data", "seg", "probabilities")},
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": settings,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    },
}
plans = {
    "dataset_name": "Dataset001_X",
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {"0": {}},
    "configurations": {"3d_fullres": configuration},
}
dataset = {
    "channel_names": {"0": "MR"},
    "labels": {"background": 0, "a": 1},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}
model = Path("results/Dataset001_X/nnUNetTrainer__nnUNetPlans__3d_fullres")
(model / "fold_0").mkdir(parents=True)
(model / "plans.json").write_text(json.dumps(plans))
(model / "dataset.json").write_text(json.dumps(dataset))
network = PlainConvUNet(
    1, 2, [4, 8], torch.nn.Conv3d, [[3] * 3] * 2, [[1] * 3, [2] * 3], [1, 1], 2, [1],
    conv_bias=True, norm_op=torch.nn.InstanceNorm3d, norm_op_kwargs={"eps": 1e-5, "affine": True},
    nonlin=torch.nn.LeakyReLU, nonlin_kwargs={"inplace": True},
)
checkpoint = {
    "network_weights": network.state_dict(),
    "trainer_name": "nnUNetTrainer",
    "init_args": {"configuration": "3d_fullres"},
    "inference_allowed_mirroring_axes": (0, 1, 2),
}
torch.save(checkpoint, model / "fold_0" / "checkpoint_final.pth")
Path("images").mkdir()
for number in range(4):
    image = np.random.default_rng(number).random((8, 8, 8), np.float32)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image), f"images/c{number}_0000.nii.gz")
PY
for processes in 1 0; do
    nnUNetv2_predict -i images -o "with_$processes" -d Dataset001_X -c 3d_fullres -f 0 \
        -device cpu --disable_tta -npp $processes -nps $processes -num_parts 2 -part_id 0 \
        > log.txt 2>&1 || { cat log.txt; exit 1; }
    found=$(ls "with_$processes" | grep -c nii.gz)
    echo "part 0 of 2, four cases, -npp $processes -nps $processes: $found predicted"
    counts="${counts:-}$found "
done
if [ "$counts" != "2 4 " ]; then
    echo "changed: the behaviour above is another one now"
    exit 1
fi
echo "as described"
