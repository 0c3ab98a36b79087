"""Keep text features of a data set's classes in a file, so that training needs no text model."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.errors import UserError

VARIABLE = "NNUNET_SEMISUP_TEXT_FEATURES"
_FIELDS = ("labels", "features", "model", "texts")


@dataclass(frozen=True)
class TextFeatures:
    """Hold unit vectors of the classes.

    Attributes:
        labels: of the data set, one a row.
        features: ``(K, D)`` float32.
        model: that computed them.
        texts: what was encoded, the texts of one label joined by `` | ``.
    """

    labels: tuple[str, ...]
    features: Tensor
    model: str
    texts: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write ``path`` (npz) atomically."""
        content = io.BytesIO()
        np.savez(
            content,
            labels=np.array(self.labels),
            features=self.features.cpu().numpy().astype(np.float32),
            model=np.array(self.model),
            texts=np.array(self.texts),
        )
        with atomic_path(path) as temporary:
            Path(temporary).write_bytes(content.getvalue())

    def for_labels(self, labels: Sequence[str], path: Path) -> Tensor:
        """Return ``(K, D)`` rows in the order of ``labels``.

        Args:
            labels: in the order of the output channels.
            path: of the file, for the message.

        Raises:
            UserError: a label has no row.
        """
        missing = [label for label in labels if label not in self.labels]
        if missing:
            raise UserError(
                f"{path} has features for {', '.join(self.labels)}, not for {', '.join(missing)}. "
                "Write it again with nnUNetv2_semisup_text_features for this data set."
            )
        return self.features[[self.labels.index(label) for label in labels]]


def features_file() -> Path:
    """Return the file that the variable names.

    Raises:
        UserError: the variable is not set or names no file.
    """
    named = os.environ.get(VARIABLE)
    if not named or not os.path.isfile(named):
        given = f"names {named}, which is not a file" if named else "is not set"
        raise UserError(
            f"text_model=features needs precomputed text features, but {VARIABLE} {given}. Write "
            "them with nnUNetv2_semisup_text_features on a machine that has the text model, and "
            f"set {VARIABLE} to the file."
        )
    return Path(named)


def features_width(default: int) -> int:
    """Return the feature width of the file that the variable names; ``default`` if it is unset.

    Raises:
        UserError: the variable names no file, or not one of features.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return default
    if not os.path.isfile(named):
        raise UserError(
            f"text_model=random takes the width of the features in {VARIABLE}, but that names "
            f"{named}, which is not a file. Correct the path, or unset {VARIABLE} for vectors of "
            f"width {default}."
        )
    return read_features(Path(named)).features.shape[1]


def read_features(path: Path) -> TextFeatures:
    """Read what :meth:`TextFeatures.save` wrote.

    Raises:
        UserError: not such a file, or features that are not finite.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            labels, features, model, texts = (content[name] for name in _FIELDS)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is not a file of nnUNetv2_semisup_text_features ({error}). Write it again."
        ) from error
    if features.ndim != 2 or len(features) != len(labels) or not np.isfinite(features).all():
        raise UserError(
            f"{path} holds features of shape {features.shape} for {len(labels)} labels, or values "
            "that are not finite. Write it again with nnUNetv2_semisup_text_features."
        )
    vectors = torch.nn.functional.normalize(torch.from_numpy(features.astype(np.float32)), dim=-1)
    return TextFeatures(
        tuple(str(x) for x in labels), vectors, str(model), tuple(str(x) for x in texts)
    )
