"""Place of a conversion: nnU-Net's raw folder, ids in use, unfinished and finished ones.

A data set is built in a hidden folder beside its final place and renamed when it is complete, so
nnU-Net never sees half of one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results

from nnunet_semisup.dataset_conversion.writing.volume_files import write_text
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.environment import require_set
from nnunet_semisup.preparation.layout import CONVERSION_REPORT
from nnunet_semisup.preparation.lock import exclusive_lock

REPORT = CONVERSION_REPORT
STATE = "conversion_state.json"
MARKER = "nnunet_semisup"
_ROOTS = (nnUNet_raw, nnUNet_preprocessed, nnUNet_results)


class Target:
    """Keep the folder ``nnUNet_raw/DatasetXXX_Name`` of one conversion.

    Args:
        dataset_id: 1 to 999.
        name: letters, digits, ``-`` and ``_``.

    Raises:
        UserError: the id, the name or the variable ``nnUNet_raw`` is not usable.
    """

    def __init__(self, dataset_id: int, name: str) -> None:
        if not 1 <= dataset_id <= 999:
            raise UserError(f"-d {dataset_id} is not possible; give a number from 1 to 999.")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise UserError(f"--name {name!r} is not possible; use letters, digits, '-' and '_'.")
        require_set("nnUNet_raw")
        self.dataset_id = dataset_id
        self.dataset_name = f"Dataset{dataset_id:03d}_{name}"
        self.folder = Path(nnUNet_raw).absolute() / self.dataset_name
        self.staging = self.folder.with_name(f".{self.dataset_name}.unfinished")
        self._replaced = self.folder.with_name(f".{self.dataset_name}.replaced")

    def faults(self, overwrite: bool) -> list[str]:
        """Return why this command must not write here: the id is in use, or the folder is.

        ``overwrite`` allows to replace what this converter has written, and nothing else.
        """
        faults = self._faults_of_place() + self._faults_of_ids()
        if self.folder.exists():
            faults += self._faults_of_folder(overwrite)
        return faults

    def _faults_of_place(self) -> list[str]:
        """Return why nothing can be created below nnUNet_raw."""
        place = next(p for p in self.folder.parents if p.exists())
        if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
            return []
        why = "is not writable" if place.is_dir() else "is not a folder"
        return [f"{place} {why}; set the variable nnUNet_raw to a folder you may write to"]

    def finish_interrupted(self) -> None:
        """Complete what :meth:`close` did not come to after the folder was in its place."""
        if (self.folder / STATE).exists():
            self._tidy()

    def check_unfinished(self, fingerprint: str, overwrite: bool) -> None:
        """Refuse to touch an unfinished conversion that is not this command's.

        Raises:
            UserError: there is one, and ``overwrite`` does not allow to discard it.
        """
        faults = self._faults_of_staging(fingerprint, overwrite) if self.staging.exists() else []
        if faults:
            raise UserError(f"cannot write {self.folder}, nothing was changed: {faults[0]}")

    def _faults_of_ids(self) -> list[str]:
        """Return the folders of nnU-Net that use the id already, apart from this target itself."""
        prefix = f"Dataset{self.dataset_id:03d}_"
        faults = []
        for variable in _ROOTS:
            root = variable.get()
            if not root or not Path(root).is_dir():
                continue
            for folder in sorted(Path(root).glob(f"{prefix}*")):
                if folder.is_dir() and folder.absolute() != self.folder:
                    faults.append(
                        f"the id {self.dataset_id} is in use by {folder}; choose another -d or "
                        "move that folder away"
                    )
        return faults

    def _faults_of_folder(self, overwrite: bool) -> list[str]:
        """Return why the finished folder cannot be replaced."""
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            return []
        report = read_json(self.folder / REPORT)
        if report.get("written_by") != MARKER:
            return [
                f"{self.folder} exists and was not written by this converter; choose another -d "
                "or move it away"
            ]
        if not overwrite:
            return [f"{self.folder} exists; --overwrite replaces it, or choose another -d"]
        known = set(report.get("files", ())) | {REPORT, STATE}
        strangers = [name for name in list_files(self.folder) if name not in known]
        return [
            f"{self.folder / name} was not written by this converter, so --overwrite does not "
            "delete it; move it away"
            for name in strangers
        ]

    def _faults_of_staging(self, fingerprint: str, overwrite: bool) -> list[str]:
        """Return why the unfinished folder can be neither resumed nor replaced."""
        if all(entry.name.startswith(".tmp-") for entry in self.staging.iterdir()):
            return []
        state = read_json(self.staging / STATE)
        if state.get("written_by") != MARKER:
            return [f"{self.staging} was not written by this converter; move it away"]
        if state.get("fingerprint") != fingerprint and not overwrite:
            return [
                f"{self.staging} holds an unfinished conversion with other options or sources; "
                "repeat that command to finish it, or add --overwrite to discard it"
            ]
        return []

    def open(self, fingerprint: str) -> bool:
        """Make the unfinished folder ready; ``True`` if it continues an earlier run.

        Raises:
            UserError: the disk refuses.
        """
        with self._refusals():
            return self._open(fingerprint)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other commands from the place, which is created if it is missing.

        Raises:
            UserError: another command writes there, or the disk refuses.
        """
        with self._refusals():
            self.staging.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(self.staging):
            yield

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Say what to do where the disk refuses."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.staging} cannot be written ({error}). Check the permissions and the free "
                "space, or set the variable nnUNet_raw to another folder."
            ) from error

    def _open(self, fingerprint: str) -> bool:
        if self.staging.exists():
            if read_json(self.staging / STATE).get("fingerprint") == fingerprint:
                for leftover in self.staging.rglob(".tmp-*"):
                    leftover.unlink()
                return True
            shutil.rmtree(self.staging)
        self.staging.mkdir(parents=True)
        state = {"written_by": MARKER, "fingerprint": fingerprint}
        write_text(json.dumps(state, indent=2) + "\n", self.staging / STATE)
        return False

    def close(self) -> None:
        """Put the complete folder in its place; what it replaces is deleted afterwards."""
        if self.folder.exists():
            self.folder.rename(self._replaced)
        self.staging.rename(self.folder)
        self._tidy()

    def _tidy(self) -> None:
        if self._replaced.exists():
            shutil.rmtree(self._replaced)
        (self.folder / STATE).unlink()


def list_files(folder: Path) -> list[str]:
    """List every file below ``folder``, relative to it, sorted."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def read_json(path: Path) -> dict:
    """Read the object in ``path``, empty if there is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
