"""The card of a shared model: what was recorded about it, without a case, a path or a person."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw

from nnunet_semisup import __version__
from nnunet_semisup.foundation.text_models import MODELS
from nnunet_semisup.preparation.folds import read_splits
from nnunet_semisup.preparation.layout import CONVERSION_REPORT, SPLITS_FILE
from nnunet_semisup.registry import method_of
from nnunet_semisup.sharing.model import OWN, TrainedModel
from nnunet_semisup.sharing.scores import Scores
from nnunet_semisup.training.checkpoint import KEY
from nnunet_semisup.training.settings import CONFIG_NAME

CARD = "model_card.json"
PAGE = "MODEL_CARD.md"
"""The card for people; nnU-Net installs both beside ``plans.json`` and reads neither."""
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Terms:
    """Hold what nothing has recorded and only a person can say.

    Attributes:
        license: of the weights, at best as an SPDX identifier.
        citation: what users shall cite.
        authors: who made the model.
        scanners: that the images come from.
    """

    license: str = ""
    citation: str = ""
    authors: str = ""
    scanners: str = ""

    def notes(self) -> list[str]:
        """Return what is missing, and by which flag it is told."""
        return [
            f"the card has no {what}: tell it with --{name}"
            for name, what in (
                ("license", "licence of the weights, so that nobody may use them"),
                ("citation", "citation"),
                ("scanners", "scanners"),
            )
            if not getattr(self, name)
        ]


def card_of(
    model: TrainedModel, terms: Terms, scores: Sequence[Scores], files: Mapping[str, str]
) -> dict[str, Any]:
    """Return the card's content, ready for JSON.

    Args:
        model: that is shared.
        terms: what a person says.
        scores: of its evaluations.
        files: hash (sha256) of each other file of the model, by its path in the model's folder.
    """
    return {
        "format_version": FORMAT_VERSION,
        "model": _identity(model),
        "license": terms.license or None,
        "citation": terms.citation or None,
        "authors": terms.authors or None,
        "data": _data(model, terms),
        "training": {str(fold): _training(model, n) for n, fold in enumerate(model.folds)},
        "metrics": [one.record() for one in scores],
        "texts": _texts(model),
        "versions": _versions(),
        "files": dict(files),
    }


def _identity(model: TrainedModel) -> dict[str, Any]:
    method = method_of(model.cls)
    return {
        "dataset": model.plans["dataset_name"],
        "trainer": model.shared_trainer,
        "trained_by": model.trainer,
        "method": {"title": method.title, "paper": method.paper, "url": method.url}
        if method
        else None,
        "plans": model.plans["plans_name"],
        "configuration": model.configuration,
        "folds": [str(fold) for fold in model.folds],
        "checkpoint": model.checkpoint,
        "needs": model.needs,
        "proof": "before these files were packed, a patch of noise a fold gave logits equal to the "
        "last byte, on a CPU, from the network as trained and from these files in nnU-Net's "
        "predictor",
    }


def _data(model: TrainedModel, terms: Terms) -> dict[str, Any]:
    configuration = model.plan.configuration_manager
    dataset = model.dataset
    return {
        "channels": dataset.get("channel_names") or dataset.get("modality"),
        "labels": dataset["labels"],
        "labeled_in_data_set": dataset.get("numTraining"),
        "of_these_predicted": len(_predicted(model)),
        "spacing_of_the_plan": list(map(float, configuration.spacing)),
        "patch_size": list(map(int, configuration.patch_size)),
        "scanners": terms.scanners or None,
        "license": dataset.get("licence") or dataset.get("license") or None,
        "converted": _converted(model),
    }


def _converted(model: TrainedModel) -> dict[str, Any] | None:
    """Return what the conversion counted, where it was by this package and is at hand."""
    totals = _json(_beside(nnUNet_raw, model, CONVERSION_REPORT)).get("totals")
    return dict(totals) if isinstance(totals, dict) else None


def _predicted(model: TrainedModel) -> set[str]:
    """Return cases whose label a round predicted; its data set lies beside its results."""
    name, own = model.plans["dataset_name"], model.fold_folder(model.folds[0]).parents[3]
    files = (
        own / "nnUNet_raw" / name / CONVERSION_REPORT,
        _beside(nnUNet_raw, model, CONVERSION_REPORT),
    )
    cases = {case: told for file in files for case, told in _cases(_json(file))}
    return {case for case, told in cases.items() if told.get("origin") == "predicted"}


def _cases(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return what a data set's report tells of each case's label."""
    cases = report.get("cases")
    found = cases.items() if isinstance(cases, dict) else ()
    labels = ((case, one.get("label")) for case, one in found if isinstance(one, dict))
    return [(case, label) for case, label in labels if isinstance(label, dict)]


def _training(model: TrainedModel, number: int) -> dict[str, Any]:
    """Return what a fold was trained with."""
    content, fold = model.contents[number], model.folds[number]
    state, record = content.get(KEY, {}), _json(model.fold_folder(fold) / CONFIG_NAME)
    settings = state.get("configuration") or record.get("hyperparameters") or {}
    split = _split(model, fold)
    unlabeled = record.get("unlabeled_cases")
    start = state.get("start_weights") or {}
    debug = _json(model.fold_folder(fold) / "debug.json")
    learned = set(state.get("trained_on") or split.get("train", ()))
    predicted = learned & _predicted(model)
    return {
        "labeled": len(learned - predicted) or None,
        "predicted": len(predicted),
        "validated_on": len(split.get("val", ())) or None,
        "unlabeled": None if unlabeled is None else len(unlabeled),
        "epochs": content.get("current_epoch"),
        "nnunet_semisup": state.get("version"),
        "torch": debug.get("torch_version"),
        "started_from": start.get("origin"),
        "settings": {key: value for key, value in settings.items() if _is_plain(value)},
    }


def _is_plain(value: Any) -> bool:
    """Tell whether a setting names no place on a disk or in a network."""
    return not isinstance(value, str) or not any(mark in value for mark in ("/", "\\", "~"))


def _split(model: TrainedModel, fold: int | str) -> dict[str, Any]:
    file = _beside(nnUNet_preprocessed, model, SPLITS_FILE)
    if fold == "all" or file is None:
        return {}
    splits = read_splits(file)
    return splits[int(fold)] if int(fold) < len(splits) else {}


def _beside(root: Any, model: TrainedModel, name: str) -> Path | None:
    return Path(str(root), model.plans["dataset_name"], name) if root.is_set() else None


def _json(file: Path | None) -> dict[str, Any]:
    """Return a record's content; nothing where it is not there, as after stock trainings."""
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file else {}
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _texts(model: TrainedModel) -> dict[str, str] | None:
    """Return the text model whose vectors are in the network that predicts, and its licence."""
    if OWN not in model.needs:
        return None
    settings = model.contents[0].get(KEY, {}).get("configuration", {})
    name = settings.get("text_model")
    if name is None:
        return None
    known = MODELS.get(name)
    terms = known.terms if known else "no text model of others"
    if name == "features":
        terms = "vectors from a file of features: the licence of the model that made them"
    return {"model": str(name), "terms": terms}


def _versions() -> dict[str, str]:
    """Return the versions that wrote the zip."""
    found = {OWN: __version__}
    for name in ("nnunetv2", "torch", "dynamic-network-architectures"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
