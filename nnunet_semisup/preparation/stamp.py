"""The stamp beside a folder of preprocessed unlabeled cases: which plan and files made them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.sources import SourceFile

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

_FORMAT = 1
# The rest of a configuration counts, also keys that only a custom preprocessor knows.
_NOT_PREPROCESSING = frozenset(
    {
        "architecture",
        "batch_dice",
        "batch_size",
        "data_identifier",
        "inherits_from",
        "median_image_size_in_voxels",
        "next_stage",
        "patch_size",
        "previous_stage",
        "resampling_fn_probabilities",
        "resampling_fn_probabilities_kwargs",
    }
)


@dataclass(frozen=True)
class Stamp:
    """Hold plan, completeness and cases of one folder.

    ``complete`` is false from the start of preprocessing to its end. ``cases`` maps every id, also
    those not yet preprocessed, to its source files.
    """

    plans_hash: str
    plans_name: str
    configuration: str
    complete: bool
    cases: Mapping[str, tuple[SourceFile, ...]]


def plans_hash(plans_manager: PlansManager, configuration_name: str) -> str:
    """Return the SHA-256 of all in the plan that influences preprocessing of a configuration.

    That is the reader, the transposition, the intensity statistics of the labeled foreground, and
    the configuration without what only concerns network and training. The patch size is left out:
    it shapes the chunks on disk, not the voxels.
    """
    settings = plans_manager.get_configuration(configuration_name).configuration
    relevant = {
        "image_reader_writer": plans_manager.plans["image_reader_writer"],
        "transpose_forward": list(plans_manager.transpose_forward),
        "intensities": plans_manager.foreground_intensity_properties_per_channel,
        "configuration": {k: v for k, v in settings.items() if k not in _NOT_PREPROCESSING},
    }
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()


def read_stamp(path: Path) -> Stamp | None:
    """Read the stamp at ``path``; ``None`` when there is none.

    Raises:
        UserError: the file is not a stamp that this version writes.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}, known is {_FORMAT}")
        cases = {
            name: tuple(SourceFile(**source) for source in sources)
            for name, sources in content["cases"].items()
        }
        fields = ("plans_hash", "plans_name", "configuration", "complete")
        return Stamp(**{key: content[key] for key in fields}, cases=cases)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a record of preprocessed unlabeled cases ({error}). Remove it and the "
            f"folder {path.with_suffix('')}, then run nnUNetv2_semisup_preprocess again."
        ) from error


def write_stamp(path: Path, stamp: Stamp) -> None:
    """Write ``stamp`` so that ``path`` has either the old or the new content at any time."""
    content: dict[str, Any] = {
        "format": _FORMAT,
        "plans_hash": stamp.plans_hash,
        "plans_name": stamp.plans_name,
        "configuration": stamp.configuration,
        "complete": stamp.complete,
        "cases": {name: [s.to_json() for s in files] for name, files in stamp.cases.items()},
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
