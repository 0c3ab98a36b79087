"""Check what a prediction is asked for before anything is written."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import load_json

from nnunet_semisup.errors import UserError
from nnunet_semisup.inference.predictor import Choice, Member, Spread
from nnunet_semisup.inference.stored import Stored, Weights
from nnunet_semisup.preparation.raw import bullet_list


@dataclass(frozen=True)
class Request:
    """Hold the arguments of a prediction.

    Attributes:
        images: folder of them; this and the next as they were given, for nnU-Net's record.
        output: folder of the predictions.
        model: folder of the trained model.
        folds: numbers or ``all``.
        checkpoint: name of the file in each fold.
        weights: ``default``, ``student`` or ``teacher``.
        members: ``first``, ``mean`` or a number, counted from 1.
        uncertainty: ``None``, ``auto`` or a :data:`Spread`.
        mirroring: whether the network predicts mirrored images, too.
        previous: folder of the previous stage's predictions.
    """

    images: str
    output: str
    model: Path
    folds: tuple[int | str, ...]
    checkpoint: str
    weights: Weights = "default"
    members: str = "first"
    uncertainty: str | None = None
    mirroring: bool = True
    previous: str | None = None

    def checked(self) -> tuple[Choice, list[str]]:
        """Return what predicts, and the names of the cases.

        Raises:
            UserError: the model, the images or the choice do not fit; all is told at once.
        """
        stored, code = self._stored()
        faults, choice = self._model_faults() + code, Choice()
        if not faults and self._asks_for_more:
            choice, more = self._choice(stored)
            faults += more
        faults += self._folder_faults()
        names: list[str] = []
        if self._model_json("dataset.json").is_file() and Path(self.images).is_dir():
            names, more = self._cases(load_json(str(self._model_json("dataset.json"))))
            faults += more
        if faults:
            raise UserError(
                f"This cannot be predicted:\n{bullet_list(faults)}\nNothing was written."
            )
        return choice, names

    @property
    def _asks_for_more(self) -> bool:
        """Tell whether something else is to predict than the network that nnU-Net takes."""
        return (self.weights, self.members, self.uncertainty) != ("default", "first", None)

    def _model_json(self, name: str) -> Path:
        return self.model / name

    def _checkpoints(self) -> list[Path]:
        return [self.model / f"fold_{fold}" / self.checkpoint for fold in self.folds]

    def _model_faults(self) -> list[str]:
        if not self.model.is_dir():
            return [
                f"there is no model folder '{self.model}': train first, install the model's zip "
                "with nnUNetv2_semisup_install, or correct -m or -d, -tr, -p, -c"
            ]
        faults = [
            f"'{self.model}' has no {name}, so it is no folder of a trained model"
            for name in ("dataset.json", "plans.json")
            if not self._model_json(name).is_file()
        ]
        missing = [path for path in self._checkpoints() if not path.is_file()]
        if missing:
            there = sorted(p.parent.name for p in self.model.glob(f"fold_*/{self.checkpoint}"))
            listed = ", ".join(str(path.relative_to(self.model)) for path in missing)
            have = f"folds with one: {', '.join(there)}" if there else "no fold has one"
            faults.append(f"'{self.model}' lacks {listed} ({have}): choose with -f and -chk")
        return faults + self._cascade_faults()

    def _stored(self) -> tuple[list[Stored], list[str]]:
        """Read the checkpoints that are there, before nnU-Net unpickles any; say which are none."""
        stored, faults = [], []
        for path in filter(Path.is_file, self._checkpoints()):
            try:
                stored.append(Stored.read(path))
            except UserError as error:
                faults.append(f"{error}: choose another with -f and -chk")
        return stored, faults

    def _cascade_faults(self) -> list[str]:
        """Say what a second stage lacks; its folder ends with the configuration's name."""
        plans = self._model_json("plans.json")
        if self.previous is not None or not plans.is_file():
            return []
        configurations = load_json(str(plans))["configurations"]
        stage = configurations.get(self.model.name.split("__")[-1], {}).get("previous_stage")
        needs = f"this model continues from predictions of {stage}: give -prev_stage_predictions"
        return [needs] if stage else []

    def _folder_faults(self) -> list[str]:
        faults, output = [], Path(self.output)
        if not Path(self.images).is_dir():
            faults.append(f"-i '{self.images}' is not a folder")
        elif Path(self.images).resolve() == Path(self.output).resolve():
            faults.append("-o is the folder of the images, whose files would be replaced")
        existing = next(p for p in (output, *output.absolute().parents) if p.exists())
        if not existing.is_dir():
            faults.append(f"-o: '{existing}' is a file: give a folder")
        elif not os.access(existing, os.W_OK):
            faults.append(f"-o: '{existing}' cannot be written to")
        return faults

    def _cases(self, dataset_json: dict[str, Any]) -> tuple[list[str], list[str]]:
        """Return the cases in the folder, and what is wrong with their files."""
        ending = dataset_json["file_ending"]
        names = dataset_json.get("channel_names") or dataset_json["modality"]
        files = {p.name for p in Path(self.images).iterdir() if p.name.endswith(ending)}
        cut = len(ending) + len("_0000")
        cases = sorted({name[:-cut] for name in files})
        if not cases:
            return [], [f"'{self.images}' has no images CASE_0000{ending}, as the model takes them"]
        number = self._files_a_case(min(files), ending, len(names))
        wanted = [f"_{channel:04d}{ending}" for channel in range(number)]
        faults = []
        if hidden := sorted(name for name in files if name.startswith(".")):
            faults.append(
                f"'{self.images}' has hidden files, which nnU-Net takes for images: "
                f"{', '.join(hidden[:5])}; delete them (macOS: dot_clean -m FOLDER)"
            )
        of_case: dict[str, set[str]] = {}
        for name in files:
            of_case.setdefault(name[:-cut], set()).add(name)
        for case in cases:
            own = of_case[case]
            expected = {case + end for end in wanted}
            if lacking := sorted(expected - own):
                faults.append(f"{case}: there is no {', '.join(lacking)} ({len(names)} channels)")
            if further := sorted(own - expected):
                faults.append(f"{case}: the model has no channel for {', '.join(further)}")
        if self.previous is not None:
            absent = [c for c in cases if not (Path(self.previous) / f"{c}{ending}").is_file()]
            if absent:
                faults.append(f"-prev_stage_predictions lacks {', '.join(absent)}")
        return cases, faults

    def _files_a_case(self, example: str, ending: str, channels: int) -> int:
        """Return how many files a case has: the colours of a picture are channels of one file."""
        from nnunet_semisup.dataset_conversion.reading.formats import PICTURE_ENDINGS, is_tif_stack
        from nnunet_semisup.dataset_conversion.reading.pictures import picture_components

        path = Path(self.images, example)
        if channels < 3 or ending not in PICTURE_ENDINGS or is_tif_stack(path):
            return channels
        values = picture_components(path)
        return channels if channels % values else channels // values

    # What predicts.

    def _choice(self, stored: list[Stored]) -> tuple[Choice, list[str]]:
        faults = self._weights_faults(stored[0])
        if len(writers := Counter(one.trainer for one in stored)) > 1:
            faults.append(f"the folds were trained by different trainers: {', '.join(writers)}")
        member, more = self._member(stored[0])
        spread, others = self._spread(stored[0])
        return Choice(self.weights, member, spread), faults + more + others

    def _weights_faults(self, stored: Stored) -> list[str]:
        if self.weights == "default" or self.weights in stored.kinds:
            return []
        have = " and ".join(stored.kinds) or "only the default"
        return [
            f"--weights {self.weights}: {stored.trainer} has no such weights in "
            f"{self.checkpoint}; it has {have}"
        ]

    def _member(self, stored: Stored) -> tuple[Member, list[str]]:
        number = stored.number_of_members
        if self.members == "first":
            return 0, []
        if number == 1:
            return 0, [f"--members {self.members}: {stored.trainer} trains one network"]
        if self.weights == "teacher":
            return 0, [f"--members {self.members} is for what learned: leave --weights teacher out"]
        if self.members == "mean":
            return "mean", []
        if self.members.isdecimal() and 1 <= int(self.members) <= number:
            return int(self.members) - 1, []
        return 0, [f"--members {self.members}: give first, mean or 1 to {number}"]

    def _spread(self, stored: Stored) -> tuple[Spread | None, list[str]]:
        """Return whose predictions the uncertainty is of: the first of those that there are."""
        if self.uncertainty is None:
            return None, []
        possible: dict[str, bool] = {
            "folds": len(self.folds) > 1,
            "members": stored.number_of_members > 1 and len(self.folds) == 1,
            "weights": set(stored.kinds) == {"student", "teacher"} and len(self.folds) == 1,
            "mirrors": self.mirroring and len(self.folds) == 1,
        }
        there = [name for name, is_there in possible.items() if is_there]
        if self.uncertainty == "auto" and there:
            return there[0], []  # type: ignore[return-value]
        if self.uncertainty in there:
            return self.uncertainty, []  # type: ignore[return-value]
        have = f"possible here: {', '.join(there)}" if there else "none is possible here"
        return None, [
            f"--uncertainty {self.uncertainty}: {stored.trainer} with {len(self.folds)} fold(s) "
            f"has no such predictions to compare ({have}; members, weights and mirrors take one "
            "fold, folds several, mirrors no --disable_tta)"
        ]
