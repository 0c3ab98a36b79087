"""Calibration of --uncertainty on labeled cases that neither training nor temperature has seen.

    python benchmarks/calibration.py -m MODEL_FOLDER -f 0 -i imagesTs -l labelsTs --uncertainty

The temperature is fitted on the fold's validation cases, as nnUNetv2_semisup_predict does; then
likelihood and expected calibration error of the given cases are printed without and with it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.nn import functional as F

from nnunet_semisup.inference.calibration import calibration_error, temperature_of, voxels_of
from nnunet_semisup.inference.predictor import SemisupPredictor
from nnunet_semisup.inference.request import Request


def main() -> None:
    """Fit the temperature, predict the cases and print both errors."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-m", type=Path, required=True, help="model folder")
    parser.add_argument("-f", type=int, default=0, help="fold")
    parser.add_argument("-i", required=True, help="images")
    parser.add_argument("-l", type=Path, required=True, help="their labels")
    parser.add_argument("--uncertainty", nargs="?", const="auto", default="auto")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    request = Request(
        images=options.i,
        output=".",
        model=options.m,
        folds=(options.f,),
        checkpoint="checkpoint_final.pth",
        uncertainty=options.uncertainty,
    )
    choice, cases = request.checked()
    predictor = SemisupPredictor(device=torch.device(options.device), allow_tqdm=False)
    predictor.choice = choice
    predictor.initialize_from_trained_model_folder(
        str(options.m), request.folds, request.checkpoint
    )
    temperature = temperature_of(predictor, request)
    managers = predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json
    preprocessor = predictor.configuration_manager.preprocessor_class(verbose=False)
    ending = predictor.dataset_json["file_ending"]
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for case in cases:
        files = sorted(str(path) for path in Path(options.i).glob(f"{case}_????{ending}"))
        image, label, _ = preprocessor.run_case(
            files, str(options.l / f"{case}{ending}"), *managers
        )
        mean = predictor.mean_logits(torch.from_numpy(image))
        label = torch.from_numpy(label[0])
        drawn.append(voxels_of(mean, label, predictor.label_manager, generator))
    logits, labels = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    print(f"{len(cases)} cases, {len(labels)} voxels, uncertainty of {choice.spread}")
    for name, divisor in (("without", 1.0), ("with", temperature)):
        error = calibration_error((logits / divisor).softmax(1), labels)
        nll = float(F.cross_entropy(logits / divisor, labels))
        print(f"{name} the temperature ({divisor:.3f}): ECE {error:.4f}, likelihood loss {nll:.4f}")


if __name__ == "__main__":
    main()
