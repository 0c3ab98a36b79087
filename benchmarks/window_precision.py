"""Measure what nnU-Net's float16 window sums change in the predictions of a trained model.

    python benchmarks/window_precision.py MODEL IMAGES [--labels LABELS] [--cases 5]

MODEL is a trained model's folder (``TRAINER__PLANS__CONFIGURATION``) or the folder of one of its
folds, IMAGES a folder of images with nnU-Net's names. Each case is predicted with nnU-Net's own
predictor and with :class:`nnunet_semisup.inference.float32.Float32Predictor`, each of them first by
turns, several times. Printed are the voxels of the image whose class differs, the Dice of the two
predictions with each other, with ``--labels`` the Dice with these labels that float32 gains, and
the ratio of the shortest times of prediction.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.utils import create_lists_from_splitted_dataset_folder

from nnunet_semisup.evaluation.tables import format_table
from nnunet_semisup.inference.float32 import Float32Predictor

HEADER = ("case", "voxels", "changed", "share", "Dice of the two", "Dice gained", "time, ratio")


def load(cls: type[nnUNetPredictor], options: argparse.Namespace) -> nnUNetPredictor:
    """Load the trained model into a predictor with nnU-Net's settings."""
    folder, folds = options.model, None
    if folder.name.startswith("fold_"):
        name = folder.name.removeprefix("fold_")
        folder, folds = folder.parent, (name if name == "all" else int(name),)
    device = torch.device(options.device)
    predictor = cls(
        use_mirroring=not options.disable_tta,
        perform_everything_on_device=device.type == "cuda",
        device=device,
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(str(folder), folds, options.checkpoint)
    return predictor


def predict(predictor: nnUNetPredictor, data: np.ndarray, properties: Any) -> Any:
    """Return the segmentation of a preprocessed image, in the image's own grid, and the seconds."""
    start = time.process_time() if predictor.device.type == "cpu" else time.perf_counter()
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data))
    end = time.process_time() if predictor.device.type == "cpu" else time.perf_counter()
    segmentation = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        predictor.plans_manager,
        predictor.configuration_manager,
        predictor.label_manager,
        properties,
        num_threads_torch=torch.get_num_threads(),
    )
    return np.asarray(segmentation), end - start


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean Dice over the labels of either but 0; NaN where there are none."""
    labels = sorted((set(np.unique(first)) | set(np.unique(second))) - {0})
    values = []
    for label in labels:
        a, b = first == label, second == label
        values.append(2 * np.sum(a & b) / (a.sum() + b.sum()))
    return float(np.mean(values)) if values else float("nan")


def measure(
    predictors: list[nnUNetPredictor], files: list[str], label: Path | None, repeats: int
) -> list[Any]:
    """Return voxels, changed voxels, Dice of both predictions, Dice gained, ratio of the times."""
    stock = predictors[0]
    plans, dataset_json = stock.plans_manager, stock.dataset_json
    preprocessor = stock.configuration_manager.preprocessor_class(verbose=False)
    data, _, properties = preprocessor.run_case(
        files, None, plans, stock.configuration_manager, dataset_json
    )
    data = np.asarray(data[:])
    times: list[list[float]] = [[], []]
    for repeat in range(repeats):
        order = 1 if repeat % 2 else -1
        found = [predict(predictor, data, properties) for predictor in predictors[::order]]
        (rounded, before), (exact, after) = found[::order]
        times[0].append(before)
        times[1].append(after)
    gained = float("nan")
    if label is not None:
        truth = plans.image_reader_writer_class().read_seg(str(label))[0][0]
        gained = dice(exact, truth) - dice(rounded, truth)
    changed = int((rounded != exact).sum())
    return [rounded.size, changed, dice(rounded, exact), gained, min(times[1]) / min(times[0])]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--labels", type=Path, help="folder of reference segmentations")
    parser.add_argument("--cases", type=int, help="only the first so many")
    parser.add_argument("--repeats", type=int, default=3, help="of which the fastest counts")
    parser.add_argument("--checkpoint", default="checkpoint_final.pth")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--disable-tta", action="store_true", help="without mirroring")
    options = parser.parse_args()
    predictors = [load(cls, options) for cls in (nnUNetPredictor, Float32Predictor)]
    ending = predictors[0].dataset_json["file_ending"]
    lists = create_lists_from_splitted_dataset_folder(str(options.images), ending)
    rows, measured = [], []
    for files in lists[: options.cases]:
        case = Path(files[0]).name.removesuffix(f"_0000{ending}")
        label = None if options.labels is None else options.labels / f"{case}{ending}"
        measured.append(measure(predictors, files, label, options.repeats))
        rows.append(describe(case, measured[-1]))
        print(case, measured[-1], flush=True)
    array = np.array(measured)
    rows.append(describe("all", [*array[:, :2].sum(0), *array[:, 2:].mean(0)]))
    print(format_table(HEADER, rows))
    exact: Any = predictors[1]
    print(f"share of the plan's grid that changed: {exact.changed / exact.voxels:.2e}")


def describe(case: str, values: list[Any]) -> list[str]:
    """Return a line of the table."""
    voxels, changed, agreement, gained, ratio = values
    return [
        case,
        f"{voxels:.0f}",
        f"{changed:.0f}",
        f"{changed / voxels:.2e}",
        f"{agreement:.6f}",
        f"{gained:+.6f}",
        f"{ratio:.3f}",
    ]


if __name__ == "__main__":
    main()
