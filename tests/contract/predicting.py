"""A model folder of a short training, predicted from by nnU-Net and by this package."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_raw

from nnunet_semisup.cli.predict import build_parser, predict

SEQUENTIAL = ("-device", "cpu", "-npp", "0", "-nps", "0", "--disable_progress_bar")


def make_model(made: Any, dataset: str, root: Path) -> tuple[Path, Path]:
    """Return a model folder with a course's checkpoint, and a folder of two images."""
    folder, images = root / "model", root / "images"
    (folder / "fold_0").mkdir(parents=True)
    for name in ("plans.json", "dataset.json"):
        shutil.copy(Path(made.trainer.output_folder_base) / name, folder)
    shutil.copy(made.file, folder / "fold_0" / "checkpoint_final.pth")
    images.mkdir()
    for file in Path(str(nnUNet_raw), dataset, "imagesUn").glob("unl_00[01]_*"):
        shutil.copy(file, images)
    return folder, images


def run(folder, images, output, *more):
    """Run the command in this process, without processes of nnU-Net's."""
    own = ("-i", str(images), "-o", str(output), "-m", str(folder), "-f", "0", *SEQUENTIAL)
    predict(build_parser().parse_args([*own, *more]))
    return output


def stock(folder, images, output, save_probabilities=False, mirroring=True):
    """Predict as nnUNetv2_predict."""
    predictor = nnUNetPredictor(
        use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
    output.mkdir()
    predictor.predict_from_files_sequential(
        str(images), str(output), save_probabilities=save_probabilities
    )
    return output


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
