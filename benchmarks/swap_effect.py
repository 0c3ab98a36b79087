"""Measure what code swaps do to the output of a trained VQ-Seg model, by perturbation mode.

    python benchmarks/swap_effect.py MODEL_FOLDER PREPROCESSED_FOLDER [--fold 0] [--cases 12]

MODEL_FOLDER is a results folder of nnUNetTrainerVQSeg (with ``plans.json``), PREPROCESSED_FOLDER
one with preprocessed cases, such as ``nnUNetPlans_3d_fullres_unlabeled``. The patch in the middle
of each case is predicted with and without swaps. ``moved by`` is the mean squared distance of a
code from the one it turns into, over the variance of the tokens; ``change`` the total variation of
the probabilities where either output has foreground; ``Dice`` that between both foregrounds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from torch import Tensor
from torch.nn import functional as F

from nnunet_semisup.evaluation.tables import format_table
from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.networks.vq_unet import VQOutput
from nnunet_semisup.training.codebooks import foreground

SWAPS = (
    ("calibrated", 32.0, 0.7),
    ("calibrated", 256.0, 0.7),
    ("paper", 0.0, 0.7),
    ("uniform", 0.0, 0.7),
    ("uniform", 0.0, 1.0),
)
"""Mode, perplexity where it has one, share of tokens."""


def middle_patch(image: Tensor, size: list[int]) -> Tensor:
    """Cut the middle patch ``(1, C, *size)`` of ``(C, *spatial)``, padded where it is larger."""
    missing = [max(0, s - n) for s, n in zip(size, image.shape[1:], strict=True)]
    image = F.pad(image, [p for m in reversed(missing) for p in (m // 2, m - m // 2)])
    for axis, s in enumerate(size, start=1):
        image = image.narrow(axis, (image.shape[axis] - s) // 2, s)
    return image[None]


def load(model: Path, fold: str) -> tuple[Any, list[int], bool]:
    """Return the network that predicts, its patch size, and whether outputs are regions."""
    predictor = nnUNetPredictor(perform_everything_on_device=False, device=torch.device("cpu"))
    folds = (fold if fold == "all" else int(fold),)
    predictor.initialize_from_trained_model_folder(str(model), folds, "checkpoint_final.pth")
    network: Any = predictor.network
    network.load_state_dict(predictor.list_of_parameters[0])
    size = list(predictor.configuration_manager.patch_size)
    return network.train(), size, bool(predictor.label_manager.has_regions)


def compare(clean: VQOutput, swapped: VQOutput, network: Any, regions: bool) -> list[float]:
    """Return ``moved by`` of each stage, ``change`` and ``Dice`` of one patch."""
    row = []
    for quantizer, one, other in zip(
        network.quantizers, clean.quantized, swapped.quantized, strict=True
    ):
        codes = quantizer.codebook
        distance = (codes[other.perturbed] - codes[one.indices]).square().sum(-1).mean()
        row.append(float(distance / one.tokens.var(0, correction=0).sum()))
    before, after = (probabilities(output.logits, regions) for output in (clean, swapped))
    masks = [foreground(p, regions) for p in (before, after)]
    either, both = masks[0] | masks[1], masks[0] & masks[1]
    change = (1.0 if regions else 0.5) * (before - after).abs().sum(1)
    total = sum(mask.sum() for mask in masks)
    row.append(float((change * either).sum() / either.sum().clamp_min(1)))
    row.append(float(2 * both.sum() / total) if total else float("nan"))
    return row


@torch.no_grad()
def main() -> None:
    """Print the quantization error of each stage and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("preprocessed", type=Path)
    parser.add_argument("--fold", default="0")
    parser.add_argument("--cases", type=int, default=12)
    args = parser.parse_args()
    network, size, regions = load(args.model, args.fold)
    dataset = infer_dataset_class(str(args.preprocessed))(str(args.preprocessed))
    patches = [
        middle_patch(torch.from_numpy(dataset.load_case(name)[0][:]).float(), size)
        for name in sorted(dataset.identifiers)[: args.cases]
    ]
    cleans = [network(patch, details=True) for patch in patches]
    for stage, quantizer in enumerate(network.quantizers):
        tokens = torch.cat([c.quantized[stage].tokens for c in cleans])
        codes = torch.cat([c.quantized[stage].indices.flatten() for c in cleans])
        error = (tokens - quantizer.codebook[codes]).square().sum(1).mean()
        relative = error / tokens.var(0, correction=0).sum()
        print(f"quantization error {stage}: {relative:.3f} of the tokens' variance")
    rows = []
    for mode, perplexity, share in SWAPS:
        torch.manual_seed(0)
        for quantizer in network.quantizers:
            quantizer.calibrate(max(perplexity, 1.0))
        results = [
            compare(clean, network(patch, torch.tensor(share), mode, True), network, regions)
            for patch, clean in zip(patches, cleans, strict=True)
        ]
        means = torch.tensor(results).nanmean(0).tolist()
        name = f"{mode}, perplexity {perplexity:g}" if perplexity else mode
        rows.append([name, f"{share:g}", *(f"{value:.3f}" for value in means)])
    stages = [f"moved by, {n}" for n in range(len(network.quantizers))]
    print(format_table(["mode", "share", *stages, "change", "Dice"], rows, markdown=True))


if __name__ == "__main__":
    main()
