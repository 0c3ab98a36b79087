"""Write text features of classes for other machines (``nnUNetv2_semisup_text_features``)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunet_semisup.cli._run import run_command
from nnunet_semisup.errors import UserError
from nnunet_semisup.foundation.class_texts import TEMPLATE, class_texts, not_words
from nnunet_semisup.foundation.text_models import MODELS
from nnunet_semisup.preparation.raw import read_labels_json


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_semisup_text_features",
        description="Encode the names or descriptions of a data set's classes with a text model "
        "and write the features to a file. Training with it needs neither network nor open_clip: "
        'set NNUNET_SEMISUP_TEXT_FEATURES=FILE and nnUNet_semisup_set="text_model=features". The '
        "file holds fixed vectors, so such a training learns no prompts (text_prompt).",
    )
    add = parser.add_argument
    add(
        "dataset",
        metavar="DATASET",
        help="data set id or name in nnUNet_raw or nnUNet_preprocessed, or the path of a "
        "dataset.json",
    )
    add("-o", "--output", type=Path, required=True, metavar="FILE.npz", help="file to write")
    add("--model", default="clip", choices=sorted(MODELS), help="default: %(default)s")
    add(
        "--template",
        default=TEMPLATE,
        help="prompt, with {} where the class goes (default: %(default)s)",
    )
    return parser


def dataset_json_path(dataset: str) -> Path:
    """Return the ``dataset.json`` that the argument means.

    Raises:
        UserError: there is none.
    """
    given = Path(dataset)
    if given.suffix == ".json":
        if given.is_file():
            return given
        raise UserError(f"{given} does not exist; give the path of a dataset.json.")
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    try:
        name = maybe_convert_to_dataset_name(int(dataset) if dataset.isdigit() else dataset)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"There is no data set {dataset}: {error}") from error
    for root in (nnUNet_preprocessed, nnUNet_raw):
        if root and (Path(str(root)) / name / "dataset.json").is_file():
            return Path(str(root)) / name / "dataset.json"
    raise UserError(
        f"There is no dataset.json for {name} in nnUNet_preprocessed or nnUNet_raw. Give its path."
    )


def _run(args: argparse.Namespace) -> None:
    from nnunet_semisup.foundation.text_features import TextFeatures
    from nnunet_semisup.foundation.text_tower import load_text_tower
    from nnunet_semisup.networks.prompts import template_features

    if "{}" not in args.template:
        raise UserError(f"--template {args.template!r} must contain {{}}, where the class goes.")
    if args.output.suffix != ".npz" or not args.output.absolute().parent.is_dir():
        raise UserError(f"-o {args.output} must be a file ending in .npz in an existing folder.")
    path = dataset_json_path(args.dataset)
    texts = class_texts(read_labels_json(path), path.parent.name, path.parent)
    vague = not_words(texts)
    if vague:
        print(
            f"warning: the labels {', '.join(vague)} say little to a text model; describe them in "
            f"{path.parent / 'class_descriptions.json'}"
        )
    features = template_features(load_text_tower(args.model), texts, args.template)
    filled = [" | ".join(args.template.replace("{}", t) for t in given) for given in texts.values()]
    TextFeatures(tuple(texts), features, args.model, tuple(filled)).save(args.output.absolute())
    print(f"wrote {args.output}: {features.shape[1]} features for {', '.join(texts)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the console script; ``argv`` defaults to the command line."""
    args = build_parser().parse_args(argv)
    run_command(lambda: _run(args))


if __name__ == "__main__":
    main()
