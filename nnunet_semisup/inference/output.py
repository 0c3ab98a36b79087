"""Write each file of a prediction whole or not at all, by nnU-Net's own functions."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import save_json
from nnunetv2.inference.export_prediction import export_prediction_from_logits

from nnunet_semisup.atomic import atomic_path, publish
from nnunet_semisup.inference.uncertainty import UncertaintyMap


@dataclass(frozen=True)
class WholeExport:
    """Export a case as nnU-Net does, in a hidden folder, and rename its files when all are there.

    The segmentation comes last: where it is, the case is done. Runs in nnU-Net's export processes.

    Attributes:
        uncertainty: makes the map of a case from what follows its logits; ``None``: nothing does.
    """

    uncertainty: UncertaintyMap | None = None

    def __call__(
        self,
        logits: Any,
        properties: dict[str, Any],
        configuration: Any,
        plans: Any,
        dataset_json: dict[str, Any],
        truncated: str,
        save_probabilities: bool = False,
    ) -> None:
        """Write the files of a case; arguments are nnU-Net's."""
        heads = plans.get_label_manager(dataset_json).num_segmentation_heads
        with whole_case(Path(truncated), dataset_json["file_ending"]) as hidden:
            export_prediction_from_logits(
                np.ascontiguousarray(logits[:heads]) if self.uncertainty else logits,
                *(properties, configuration, plans, dataset_json),
                *(str(hidden), save_probabilities),
            )
            if self.uncertainty:
                self.uncertainty.write(
                    *(logits[heads:], properties, configuration, plans, dataset_json),
                    hidden.with_name(f"{hidden.name}{dataset_json['file_ending']}"),
                    Path(truncated).parent,
                )


@contextmanager
def whole_case(target: Path, ending: str) -> Iterator[Path]:
    """Yield a path in a hidden folder for the files of a case, which are renamed at the end.

    Args:
        target: path of the segmentation without its ending; the yielded path has its name.
        ending: of the segmentation, which comes last: where it is, the case is done.
    """
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial / target.name
        last = partial / f"{target.name}{ending}"
        for file in sorted(partial.iterdir(), key=lambda path: path == last):
            publish(file, target.parent / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def save_json_whole(content: Any, file: str, *args: Any, **kwargs: Any) -> None:
    """Write a JSON file as nnU-Net does, whole or not at all."""
    with atomic_path(Path(file)) as temporary:
        save_json(content, str(temporary), *args, **kwargs)


@contextmanager
def whole_files(export: Callable[..., None]) -> Iterator[None]:
    """Make nnU-Net's predictor write all of its files whole or not at all, inside."""
    module: Any = import_module("nnunetv2.inference.predict_from_raw_data")
    names = {"export_prediction_from_logits": export, "save_json": save_json_whole}
    before = {name: getattr(module, name) for name in names}
    for name, function in names.items():
        setattr(module, name, function)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(module, name, function)
