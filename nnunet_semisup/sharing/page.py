"""The card of a shared model as a page for people."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_semisup.document import Code, Heading, Listing, Part, Table, Text, to_markdown
from nnunet_semisup.evaluation.names import TABLE_METRICS, with_unit
from nnunet_semisup.evaluation.tables import fixed

FINAL = "checkpoint_final.pth"
"""The checkpoint that nnU-Net predicts from by default."""
UNKNOWN = "not stated"
_HEADERS = {"validated_on": "validated on", "nnunet_semisup": "nnunet-semisup"}


def page_of(card: Mapping[str, Any], name: str) -> str:
    """Return the card as Markdown.

    Args:
        card: of :func:`~nnunet_semisup.sharing.card.card_of`.
        name: of the model's folder below ``nnUNet_results``.
    """
    return to_markdown(
        [
            Heading(f"Model card: {name}", 1),
            Text(_what_it_is(card["model"])),
            *_use(card["model"], name),
            *_terms(card),
            *_data(card),
            *_metrics(card),
            *_training(card),
        ]
    )


def predict_command(name: str, folds: Sequence[str], checkpoint: str) -> str:
    """Return the command that predicts from an installed model.

    Args:
        name: of the model's folder below ``nnUNet_results``.
        folds: numbers or ``all``.
        checkpoint: name of the file in each fold.
    """
    dataset, model = name.split("/")
    trainer, plans, configuration = model.split("__")
    words = [
        *("nnUNetv2_predict", "-i", "IMAGES", "-o", "PREDICTIONS", "-d", dataset),
        *("-tr", trainer, "-p", plans, "-c", configuration, "-f", *folds),
        *(() if checkpoint == FINAL else ("-chk", checkpoint)),
    ]
    return shlex.join(words)


def needs_of(packages: Sequence[str]) -> str:
    """Return what has to be installed where the model predicts, besides nnU-Net."""
    if not packages:
        return "It needs nothing but nnU-Net to predict."
    return f"Besides nnU-Net it needs {' and '.join(packages)} to predict."


def _what_it_is(model: Mapping[str, Any]) -> str:
    method = model["method"]
    how = f" ({method['title']}; {method['paper']}, {method['url']})" if method else ""
    return (
        f"Segmentation of {model['dataset']}, trained by {model['trained_by']}{how}, configuration "
        f"{model['configuration']} of {model['plans']}, folds {', '.join(model['folds'])}."
    )


def _use(model: Mapping[str, Any], name: str) -> list[Part]:
    install = "nnUNetv2_install_pretrained_model_from_zip FILE.zip"
    return [
        Heading("Use"),
        Text(needs_of(model["needs"])),
        Code(f"{install}\n{predict_command(name, model['folds'], model['checkpoint'])}"),
        Text(
            f"Proof: {model['proof']}. Images with other channels, contrasts or populations, or of "
            "other scanners than below, were not seen in training."
        ),
    ]


def _terms(card: Mapping[str, Any]) -> list[Part]:
    lines = [
        f"Authors: {card['authors'] or UNKNOWN}",
        f"Licence of the weights: {card['license'] or f'{UNKNOWN}; ask the authors before use'}",
        f"Licence of the data that they were trained on: {card['data']['license'] or UNKNOWN}",
        f"Please cite: {card['citation'] or UNKNOWN}",
    ]
    if texts := card["texts"]:
        lines.append(f"Class texts in the network are of {texts['model']}: {texts['terms']}")
    return [Heading("Terms"), Listing(lines)]


def _data(card: Mapping[str, Any]) -> list[Part]:
    data = card["data"]
    predicted = data["of_these_predicted"]
    rows: list[list[object]] = [
        ["channels", ", ".join(map(str, data["channels"].values()))],
        ["labels", ", ".join(f"{name} {value}" for name, value in data["labels"].items())],
        ["cases with labels in the data set", data["labeled_in_data_set"]],
        *([["of these labels predicted", predicted]] if predicted else []),
        ["spacing of the plan", " x ".join(f"{value:g}" for value in data["spacing_of_the_plan"])],
        ["patch", " x ".join(map(str, data["patch_size"]))],
        ["scanners", data["scanners"] or UNKNOWN],
    ]
    if data["converted"]:
        counted = ", ".join(f"{key} {value}" for key, value in data["converted"].items())
        rows.append(["counted at the conversion", counted])
    return [Heading("Data"), Table(["what", "value"], rows)]


def _metrics(card: Mapping[str, Any]) -> list[Part]:
    parts: list[Part] = [Heading("Metrics")]
    if not card["metrics"]:
        return [*parts, Text("No evaluation was recorded.")]
    for one in card["metrics"]:
        parts.append(Heading(f"{one['evaluated']}, {one['cases']} cases", 3))
        metrics = [m for m in TABLE_METRICS if any(m in v for v in one["classes"].values())]
        header = ["class", *(with_unit(metric, one["distance_unit"]) for metric in metrics)]
        rows = [
            [name, *(_shown(values[metric]) for metric in metrics)]
            for name, values in one["classes"].items()
        ]
        parts.append(Table(header, rows))
    parts.append(
        Text(
            "Mean over the cases in which the class is defined, and its 95 % interval (bootstrap "
            "over cases). It tells of this network on these cases, and nothing of other scanners."
        )
    )
    return parts


def _shown(value: Mapping[str, Any]) -> str | None:
    if value["mean"] is None:
        return None
    interval = value["interval"]
    around = f" ({fixed(interval[0])} to {fixed(interval[1])})" if interval else ""
    return f"{fixed(value['mean'])}{around}"


def _training(card: Mapping[str, Any]) -> list[Part]:
    keys = ["labeled", "validated_on", "unlabeled", "epochs", "nnunet_semisup", "torch"]
    if any(one["predicted"] for one in card["training"].values()):
        keys.insert(1, "predicted")
    header = ["fold", *(_HEADERS.get(key, key) for key in keys)]
    rows = [[fold, *(one[key] for key in keys)] for fold, one in card["training"].items()]
    lines = [
        f"fold {fold}: "
        + "; ".join(
            [
                *([f"started from {one['started_from']}"] if one["started_from"] else []),
                *([_listed(one["settings"])] if one["settings"] else []),
            ]
        )
        for fold, one in card["training"].items()
        if one["settings"] or one["started_from"]
    ]
    packed = _listed(card["versions"])
    return [
        Heading("Training"),
        Table(header, rows),
        *([Listing(lines)] if lines else []),
        Text(f"Packed with {packed}. Hashes of the files are in model_card.json."),
    ]


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
