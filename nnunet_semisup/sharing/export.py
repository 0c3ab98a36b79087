"""Pack a trained model into nnU-Net's zip: checked, proved, with a card, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.dataset_conversion.reading.scans import source_sha256
from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.compare import read_evaluation
from nnunet_semisup.evaluation.names import REPORT_NAME
from nnunet_semisup.preparation.layout import FINGERPRINT_FILE
from nnunet_semisup.preparation.raw import bullet_list
from nnunet_semisup.sharing.card import CARD, PAGE, Terms, card_of
from nnunet_semisup.sharing.members import POSTPROCESSING, postprocessing_faults
from nnunet_semisup.sharing.model import TrainedModel, read_model
from nnunet_semisup.sharing.page import needs_of, page_of, predict_command
from nnunet_semisup.sharing.proof import differing_folds, light_checkpoint
from nnunet_semisup.sharing.scores import Scores, of_evaluation, validation_scores

_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every member: the same model gives the same zip."""


@dataclass(frozen=True)
class Export:
    """Hold what is to be packed.

    Attributes:
        model: folder of the model.
        folds: numbers or ``all``.
        checkpoint: name of the file in each fold.
        output: the zip.
        terms: what a person says about the model.
        evaluation: of held-out cases, file or folder; ``None``: there is none.
    """

    model: Path
    folds: tuple[int | str, ...]
    checkpoint: str
    output: Path
    terms: Terms = field(default_factory=Terms)
    evaluation: Path | None = None


def export(request: Export) -> dict[str, Any]:
    """Write the zip, tell about it, and return its card.

    Raises:
        UserError: something is missing, does not belong together, or does not predict as it was
            trained; all is told at once, and nothing is written.
    """
    model, scores, notes = _checked(request)
    with tempfile.TemporaryDirectory(prefix=".export_", dir=request.output.parent) as temporary:
        root = Path(temporary)
        folder = root / model.name
        _write_files(model, folder)
        if faults := differing_folds(model, folder):
            raise _refusal(faults)
        files = {
            path.relative_to(folder).as_posix(): source_sha256(path) for path in _files(folder)
        }
        card = card_of(model, request.terms, scores, files)
        page = page_of(card, model.name)
        (folder / PAGE).write_text(page, encoding="utf-8", newline="\n")
        card["files"][PAGE] = source_sha256(folder / PAGE)
        _write_json(folder / CARD, card)
        with atomic_path(request.output) as target:
            _pack(root, target)
    for note in [*notes, *request.terms.notes()]:
        print(f"note: {note}")
    _tell(request.output, card, model.name)
    return card


def _checked(request: Export) -> tuple[TrainedModel, list[Scores], list[str]]:
    """Return model, scores, and what is to be said; refuse all faults at once."""
    faults = _output_faults(request.output)
    model, more = read_model(request.model, request.folds, request.checkpoint)
    faults += more
    scores: list[Scores] = []
    notes: list[str] = []
    if model is not None:
        try:
            scores, notes = validation_scores(model)
        except UserError as error:
            faults.append(str(error))
        faults += _postprocessing(model)
    if request.evaluation is not None:
        try:
            file = request.evaluation
            file = file / REPORT_NAME if file.is_dir() else file
            scores.append(of_evaluation(read_evaluation(file, "held-out cases")))
        except UserError as error:
            faults.append(f"--evaluation: {error}")
    if faults or model is None:
        raise _refusal(faults)
    if not scores:
        notes.append("the card has no metrics: give an evaluation of held-out cases, --evaluation")
    return model, scores, notes


def _refusal(faults: Iterable[str]) -> UserError:
    return UserError(f"This cannot be shared:\n{bullet_list(faults)}\nNothing was written.")


def _output_faults(output: Path) -> list[str]:
    faults = []
    if output.suffix != ".zip":
        faults.append(f"-o '{output}': give the name of a .zip file")
    if output.exists() or output.is_symlink():
        faults.append(f"-o '{output}' exists, and is not replaced: give another name")
    if not output.parent.is_dir():
        faults.append(f"-o: there is no folder '{output.parent}'")
    elif not os.access(output.parent, os.W_OK):
        faults.append(f"-o: '{output.parent}' cannot be written to")
    return faults


# Files.


def _crossval(model: TrainedModel) -> str:
    """Return nnU-Net's name for the folder of what was found out over these folds."""
    return f"crossval_results_folds_{'_'.join(map(str, model.folds))}"


def _postprocessing(model: TrainedModel) -> list[str]:
    file = model.folder / _crossval(model) / POSTPROCESSING
    return postprocessing_faults(file, str(file)) if file.is_file() else []


def _write_files(model: TrainedModel, folder: Path) -> None:
    """Write everything but the card."""
    for number, fold in enumerate(model.folds):
        own = folder / f"fold_{fold}"
        own.mkdir(parents=True)
        torch.save(light_checkpoint(model, number), own / model.checkpoint)
        _copy(model.fold_folder(fold) / "progress.png", own)
    _write_json(folder / "plans.json", model.plans)
    _write_json(folder / "dataset.json", model.bare_dataset)
    _copy(model.folder / FINGERPRINT_FILE, folder)
    for name in (POSTPROCESSING, "postprocessing.json"):
        _copy(model.folder / _crossval(model) / name, folder / _crossval(model))


def _copy(file: Path, folder: Path) -> None:
    """Copy a file where it is there: nothing predicts from it."""
    if file.is_file():
        folder.mkdir(exist_ok=True)
        shutil.copyfile(file, folder / file.name)


def _write_json(file: Path, content: Any) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False)
    file.write_text(f"{text}\n", encoding="utf-8", newline="\n")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _pack(root: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _files(root):
            member = zipfile.ZipInfo(path.relative_to(root).as_posix(), _DATE)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            with path.open("rb") as source, archive.open(member, "w", force_zip64=True) as place:
                shutil.copyfileobj(source, place, 1 << 20)


def _tell(output: Path, card: dict[str, Any], name: str) -> None:
    model = card["model"]
    size = output.stat().st_size / 1e6
    print(f"{output} ({size:.1f} MB, sha256 {source_sha256(output)})")
    if model["trainer"] != model["trained_by"]:
        print(f"It names {model['trainer']}, which predicts as {model['trained_by']} does.")
    print(needs_of(model["needs"]))
    print("Install and predict elsewhere:")
    print(f"  nnUNetv2_install_pretrained_model_from_zip {output.name}")
    print(f"  {predict_command(name, model['folds'], model['checkpoint'])}")
