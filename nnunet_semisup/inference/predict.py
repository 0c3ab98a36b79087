"""The course of a prediction: nnU-Net's own, with whole files, and what was asked for besides.

What only some predictions need is imported there: time and memory are to be nnU-Net's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nnunet_semisup.inference.output import WholeExport, whole_files
from nnunet_semisup.inference.predictor import Choice, SemisupPredictor
from nnunet_semisup.inference.request import Request
from nnunet_semisup.inference.uncertainty import UncertaintyMap, file_of


@dataclass(frozen=True)
class Run:
    """Hold how a prediction runs; names and defaults are nnU-Net's.

    Attributes:
        device: ``cpu``, ``cuda`` or ``mps``.
        step_size: of the sliding window, as a part of the patch.
        on_device: keep everything on a GPU.
        save_probabilities: write them, too.
        continues: keep cases that are whole.
        preprocessing, exporting: numbers of processes; both 0: none at all.
        num_parts, part: of commands that share the cases.
        verbose, progress_bar: what is told.
        overlays: draw the predictions over the images.
    """

    device: torch.device
    step_size: float = 0.5
    on_device: bool = True
    save_probabilities: bool = False
    continues: bool = False
    preprocessing: int = 3
    exporting: int = 3
    num_parts: int = 1
    part: int = 0
    verbose: bool = False
    progress_bar: bool = True
    overlays: bool = False


def predict(request: Request, run: Run) -> list[str]:
    """Predict all cases of a folder, and return their names.

    Raises:
        UserError: see :meth:`Request.checked`.
    """
    choice, names = request.checked()
    predictor = ready_predictor(SemisupPredictor, choice, request, run)
    uncertainty = None
    if choice.spread is not None:
        from nnunet_semisup.inference.calibration import temperature_of

        uncertainty = UncertaintyMap(temperature_of(predictor, request))
    output = Path(request.output)
    output.mkdir(parents=True, exist_ok=True)
    ending = predictor.dataset_json["file_ending"]
    predictor.is_done = _done(output, ending, run, choice.spread is not None)
    with whole_files(WholeExport(uncertainty)):
        predict_files(predictor, request, run)
    if run.overlays:
        from nnunet_semisup.inference.overlays import draw_predictions

        draw_predictions(
            names[run.part :: run.num_parts],
            Path(request.images),
            output,
            predictor.dataset_json,
            predictor.plans_manager.image_reader_writer_class,
            choice.spread is not None,
            run.exporting,
        )
    return names


def ready_predictor(
    cls: type[SemisupPredictor], choice: Choice, request: Request, run: Run
) -> SemisupPredictor:
    """Return a predictor that has read the model of a checked request."""
    predictor = cls(
        tile_step_size=run.step_size,
        use_gaussian=True,
        use_mirroring=request.mirroring,
        perform_everything_on_device=run.on_device,
        device=run.device,
        verbose=run.verbose,
        verbose_preprocessing=run.verbose,
        allow_tqdm=run.progress_bar,
    )
    predictor.choice = choice
    predictor.part = run.part, run.num_parts
    predictor.initialize_from_trained_model_folder(
        str(request.model), request.folds, request.checkpoint
    )
    return predictor


def _done(output: Path, ending: str, run: Run, with_map: bool) -> Callable[[str], bool]:
    """Return what tells of a case's truncated path whether all of its files are there."""
    endings = [ending, *((".npz", ".pkl") if run.save_probabilities else ())]

    def is_done(truncated: str) -> bool:
        whole = all(Path(truncated + one).is_file() for one in endings)
        return whole and (not with_map or file_of(output, Path(truncated).name, ending).is_file())

    return is_done


def predict_files(predictor: SemisupPredictor, request: Request, run: Run) -> None:
    """Call nnU-Net's function as ``nnUNetv2_predict`` does."""
    common: dict[str, Any] = {
        "save_probabilities": run.save_probabilities,
        "overwrite": not run.continues,
        "folder_with_segs_from_prev_stage": request.previous,
    }
    folders = request.images, request.output
    if run.preprocessing == 0 and run.exporting == 0:
        predictor.predict_from_files_sequential(*folders, **common)
        return
    predictor.predict_from_files(
        *folders,
        **common,
        num_processes_preprocessing=run.preprocessing,
        num_processes_segmentation_export=run.exporting,
        num_parts=run.num_parts,
        part_id=run.part,
    )
