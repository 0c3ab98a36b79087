"""The labeled cases before nnU-Net plans from them, checked as ``verify`` checks them."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_semisup.dataset_conversion.cases import Subset
from nnunet_semisup.dataset_conversion.checking.raw_dataset import read_cases
from nnunet_semisup.dataset_conversion.findings import Findings
from nnunet_semisup.preparation.fingerprint import ignored_share
from nnunet_semisup.preparation.raw import DatasetFolders
from nnunet_semisup.preparation.rules import Accepted


@dataclass(frozen=True)
class CheckedLabeled:
    """Hold the outcome of :func:`check_labeled`: what the user should be told.

    ``ignored`` is the share of the ignore label in what nnU-Net takes for foreground, ``None``
    without such a label.
    """

    warnings: tuple[str, ...]
    ignored: float | None


def check_labeled(
    folders: DatasetFolders, num_processes: int, accepted: Accepted, show_progress: bool = True
) -> CheckedLabeled:
    """Read ``imagesTr`` and ``labelsTr`` completely; nothing is written.

    Args:
        folders: raw and preprocessed folder of the data set.
        num_processes: processes that read files.
        accepted: by the user; what was accepted when the data set was converted is, too.
        show_progress: whether to show a progress bar.

    Raises:
        UserError: something is wrong with them; every fault is in the one message.
    """
    findings = Findings()
    cases = read_cases(folders, num_processes, accepted, findings, (Subset.LABELED,), show_progress)
    findings.raise_faults(f"The labeled cases of {folders.raw} have")
    assert cases is not None
    ignored = cases.form.labels.get("ignore")
    share = None
    if isinstance(ignored, int):
        share = ignored_share([found.label_counts for found in cases.facts], ignored)
    return CheckedLabeled(tuple(findings.warnings), share)
