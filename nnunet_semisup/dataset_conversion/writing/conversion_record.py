"""The record of a conversion: where every voxel came from."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnunet_semisup.dataset_conversion.cases import CaseFacts, DatasetForm, FileFacts, Subset
from nnunet_semisup.dataset_conversion.subsets import Split
from nnunet_semisup.dataset_conversion.writing.dataset_writer import output_paths
from nnunet_semisup.dataset_conversion.writing.target import MARKER


def build_report(
    form: DatasetForm,
    split: Split,
    facts: Sequence[CaseFacts],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Build the report, json-ready: equal for equal inputs, so it holds no time."""
    count = {s.value: sum(f.case.subset is s for f in facts) for s in Subset}
    return {
        "written_by": MARKER,
        "versions": {
            "nnunet-semisup": version("nnunet-semisup"),
            "nnunetv2": version("nnunetv2"),
            "SimpleITK": version("SimpleITK"),
            "numpy": version("numpy"),
            "python": platform.python_version(),
        },
        "settings": dict(settings),
        "totals": {
            **count,
            "labeled_in_split": len(split.labeled),
            "voxels": sum(_voxels(f) for f in facts),
            "foreground_voxels": sum(
                n for f in facts for value, n in f.label_counts.items() if value
            ),
        },
        "cases": {f.case.id: _case(f, form) for f in facts},
    }


def _voxels(facts: CaseFacts) -> int:
    product = 1
    for size in facts.geometry.size if facts.geometry else ():
        product *= size
    return product


def _case(facts: CaseFacts, form: DatasetForm) -> dict[str, Any]:
    """Return one case of the report."""
    geometry = facts.geometry
    images, label = output_paths(facts.case, form.file_ending)
    return {
        "subset": facts.case.subset.value,
        "images": [
            {"file": name, **_file(file)} for name, file in zip(images, facts.images, strict=True)
        ],
        "label": {"file": label, **_file(facts.label)} if facts.label else None,
        **_names(facts),
        **({"turned_to": facts.turned_to} if facts.turned_to else {}),
        "size": list(geometry.size) if geometry else None,
        "spacing": list(geometry.spacing) if geometry else None,
        "origin": list(geometry.origin) if geometry else None,
        "direction": list(geometry.direction) if geometry else None,
        "label_voxels": {str(value): n for value, n in sorted(facts.label_counts.items())},
        "warnings": facts.warnings,
    }


def _names(facts: CaseFacts) -> dict[str, Any]:
    """Return the names in a label file that has some, and the value that each became."""
    if not facts.label_names or facts.meaning is None:
        return {}
    became = facts.meaning.label_map
    return {
        "label_names": {
            str(value): {"name": name, "written_as": became[value]}
            for value, name in facts.label_names.items()
        }
    }


def _file(file: FileFacts) -> dict[str, Any]:
    return {
        "source": str(file.path.absolute()),
        "source_sha256": file.sha256,
        "voxels_sha256": file.voxels_sha256,
        "dtype": file.dtype,
        "minimum": file.minimum,
        "maximum": file.maximum,
        "sum": file.total,
    }


def summary(report: Mapping[str, Any], folder: Path, dry_run: bool) -> str:
    """Return what the user reads at the end."""
    totals = report["totals"]
    parts = ", ".join(f"{totals[s.value]} {s.value}" for s in Subset if totals[s.value])
    lines = [f"warning: {text}" for text in report["warnings"]]
    if turned := report.get("reoriented", {}).get("cases"):
        axes = report["reoriented"]["axes"]
        lines.append(
            f"{len(turned)} cases turned to the axes of the others, {axes}; scans to predict must "
            "have them, too"
        )
    done = (
        f"all checks passed, nothing was written (--dry-run); {folder} would hold"
        if dry_run
        else f"{folder} holds"
    )
    lines.append(f"{done} {parts} cases")
    return "\n".join(lines)
