"""Tiny preprocessed data sets of every kind a trainer must handle, and trainers on them."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from nnunet_semisup.foundation import text_features, text_tower
from nnunet_semisup.method import CLASSES, IGNORE_LABEL
from nnunet_semisup.method import REGIONS as REGIONS_OF_ROW
from nnunet_semisup.preparation.inserted_plans import Chosen, write_inserted_plans
from nnunet_semisup.preparation.preprocessing import preprocess_unlabeled
from nnunet_semisup.registry import METHODS, Method, find_method
from tests.contract.course import Course
from tests.contract.predicting import make_model
from tests.helpers import (
    make_raw_dataset,
    nnunet_folders,
    plan_and_preprocess_labeled,
    trial_settings,
)
from tests.text_models import make_clip_folder

EVERYTHING = bool(os.environ.get("NNUNET_SEMISUP_TEST_ALL"))
"""Whether every test runs on every method and kind of data set (``make test-all``)."""

SEMI_SUPERVISED = [m for m in METHODS if m.uses_unlabeled]
WITH_TEACHER = [m for m in SEMI_SUPERVISED if m.has_teacher]

LABEL_KINDS = {"labels": CLASSES, "regions": REGIONS_OF_ROW, "ignore": IGNORE_LABEL}
"""What a row of the registry calls the labels of a kind of data set."""

LABELS = {"background": 0, "a": 1, "b": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
WITH_IGNORE = {**LABELS, "ignore": 3}


@dataclass(frozen=True)
class Kind:
    """Describe a kind of data set: name, number, shape, labels, channels."""

    name: str
    number: int
    shape: tuple[int, ...]
    labels: dict[str, Any]
    channels: int = 1
    configuration: str = "3d_fullres"


KINDS = {
    kind.name: kind
    for kind in (
        Kind("labels3d", 801, (20, 20, 20), LABELS),
        Kind("regions3d", 802, (20, 20, 20), REGIONS, channels=2),
        Kind("ignore3d", 803, (20, 20, 20), WITH_IGNORE),
        Kind("labels2d", 804, (32, 32), LABELS, channels=3, configuration="2d"),
        Kind("regions2d", 805, (32, 32), REGIONS, configuration="2d"),
        Kind("ignore2d", 806, (32, 32), WITH_IGNORE, configuration="2d"),
    )
}
USUAL = ("labels3d", "regions3d", "ignore3d", "labels2d", "regions2d")
"""Kinds that a method of every dimensionality is trained on."""


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Give the preprocessed folder of a kind, made at its first use."""
    root = tmp_path_factory.mktemp("contract")
    with pytest.MonkeyPatch.context() as patch:
        folders = nnunet_folders(root, patch)
        made: dict[str, Path] = {}

        def get(name: str) -> Path:
            if name not in made:
                with pytest.MonkeyPatch.context() as inner:
                    inner.delenv("nnUNet_n_proc_DA", raising=False)
                    made[name] = _make(KINDS[name], folders.raw, folders.preprocessed)
            return made[name]

        yield get


def _make(kind: Kind, raw: Path, preprocessed: Path) -> Path:
    ending = ".png" if len(kind.shape) == 2 else ".nii.gz"
    order = [1, 2] if any(isinstance(v, list) for v in kind.labels.values()) else None
    dataset = make_raw_dataset(
        raw,
        kind.number,
        kind.name,
        kind.shape,
        num_labeled=3,
        num_unlabeled=3,
        num_channels=kind.channels,
        labels=kind.labels,
        file_ending=ending,
        regions_class_order=order,
    )
    splits = [{"train": list(dataset.labeled[:2]), "val": list(dataset.labeled[2:])}]
    (raw / dataset.folder.name / "splits_final.json").write_text(json.dumps(splits))
    plan_and_preprocess_labeled(kind.number, [])
    folder = preprocessed / dataset.folder.name
    plans_file = folder / "nnUNetPlans.json"
    plans = json.loads(plans_file.read_text(encoding="utf-8"))
    configuration = plans["configurations"][kind.configuration]
    dims = 2 if kind.configuration == "2d" else 3
    stages = 3
    configuration["patch_size"] = [16] * dims
    configuration["batch_size"] = 2
    kwargs = configuration["architecture"]["arch_kwargs"]
    kwargs.update(
        n_stages=stages,
        features_per_stage=[4, 8, 8],
        kernel_sizes=[[3] * dims] * stages,
        strides=[[1] * dims] + [[2] * dims] * (stages - 1),
        n_conv_per_stage=[1] * stages,
        n_conv_per_stage_decoder=[1] * (stages - 1),
    )
    plans_file.write_text(json.dumps(plans))
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess

    from tests.helpers import nnunet_in_process

    with nnunet_in_process():
        preprocess([kind.number], configurations=[kind.configuration], num_processes=[1])
    preprocess_unlabeled(kind.number, [kind.configuration], num_processes=[0], show_progress=False)
    return folder


def plans_for(cls: Any, settings: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return the plans of a file, with a fourth stage where LoMix would else find none to mix."""
    plans: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if settings.get("labeled_loss", getattr(cls, "labeled_loss", "")) == "lomix":
        for configuration in plans["configurations"].values():
            if "architecture" in configuration:
                kwargs = configuration["architecture"]["arch_kwargs"]
                kwargs["n_stages"] += 1
                for values in kwargs.values():
                    if isinstance(values, list):
                        values.append(values[-1])
    return plans


def trainer_class(method: Method | type) -> Any:
    """Return the class of a registry row; a class as it is."""
    if isinstance(method, type):
        return method
    return getattr(import_module(f"nnunet_semisup.trainers.{method.module}"), method.trainer)


def definitions(method: Method, names: Iterable[str]) -> tuple[int, ...]:
    """Identify every definition of attributes in a trainer's class and its bases.

    All of them count, not only the first one found, because functions call ``super()``'s.
    """
    bases = trainer_class(method).__mro__
    return tuple(id(vars(base)[n]) for n in names for base in bases if n in vars(base))


def one_of_each(*names: str, among: Sequence[Method] = METHODS) -> list[Method]:
    """Return the first method of each distinct implementation of the functions that a test is for.

    A trainer that overrides one of them enters by itself. With ``make test-all``: every method.

    Args:
        names: of the functions and attributes.
        among: methods to choose from.
    """
    chosen: dict[Any, Method] = {}
    for name in names:
        assert any(hasattr(trainer_class(method), name) for method in among), name
    for method in among:
        chosen.setdefault(method if EVERYTHING else definitions(method, names), method)
    return list(chosen.values())


def fitting(method: Method | type, kind: str) -> str:
    """Return a kind, or the most alike one that the method trains in.

    With the other number of dimensions, and with classes in place of labels of a kind that the
    registry does not list for the method.
    """
    if isinstance(method, type):
        return kind
    labels, dims = kind[:-2], kind[-2:]
    if LABEL_KINDS[labels] not in method.labels:
        labels = "labels"
    if int(dims[0]) not in method.dims:
        dims = f"{method.dims[0]}d"
    return labels + dims


def kinds_of(method: Method, kinds: Sequence[str] = USUAL) -> list[str]:
    """Return for each kind the one that fits the method, each once."""
    return list(dict.fromkeys(fitting(method, kind) for kind in kinds))


def product(methods: Sequence[Method], kinds: Sequence[str] = USUAL) -> list[tuple[Method, str]]:
    """Return every method with every kind that it trains in."""
    return [(method, kind) for method in methods for kind in kinds_of(method, kinds)]


def each_once(methods: Sequence[Method], kinds: Sequence[str] = USUAL) -> list[tuple[Method, str]]:
    """Return every method with its first kind, and the first method with the other kinds as well.

    For what depends on the method or on the kind, but not on both together. With
    ``make test-all``: the product.
    """
    first = methods[0]
    return [
        (method, kind)
        for method, kind in product(methods, kinds)
        if EVERYTHING or method is first or kind == kinds_of(method, kinds)[0]
    ]


def each_method(methods: Sequence[Method]) -> pytest.MarkDecorator:
    """Run a test with each method as its argument ``method``."""
    return pytest.mark.parametrize("method", methods, ids=lambda m: m.trainer)


def each_pair(pairs: Sequence[tuple[Method, str]]) -> pytest.MarkDecorator:
    """Run a test with each pair as its arguments ``method`` and ``kind``."""
    return pytest.mark.parametrize(
        ("method", "kind"), pairs, ids=lambda value: getattr(value, "trainer", value)
    )


@dataclass(frozen=True)
class Builder:
    """Build trainers with results in a folder; each sets nnU-Net's variables as a run would.

    Attributes:
        datasets: gives the preprocessed folder of a kind.
        root: the folder.
        patch: of the variables.
        counter: of the trainers.
        plans: name of the plans.
    """

    datasets: Callable[[str], Path]
    root: Path
    patch: pytest.MonkeyPatch
    counter: Iterator[int]
    plans: str = "nnUNetPlans"

    def __call__(
        self, method: Method | type, kind: str, fold: Any = 0, start: bool = True, **settings: Any
    ) -> Any:
        """Return a trainer of a method, or of a class, on a kind of data set.

        Args:
            method: row of the registry, whose ``trial`` settings are taken, or class.
            kind: name of the kind; :func:`fitting` is taken.
            fold: number or ``"all"``.
            start: bring it to the first step.
            settings: hyper-parameters.
        """
        kind = fitting(method, kind)
        folder = self.datasets(kind)
        cls = trainer_class(method)
        settings = {
            "num_epochs": 2,
            "num_iterations_per_epoch": 2,
            "num_val_iterations_per_epoch": 1,
            "seed": 3,
            **trial_settings(cls.__name__),
            **settings,
        }
        self.patch.setenv(
            "nnUNet_semisup_set", ",".join(f"{name}={value}" for name, value in settings.items())
        )
        self.patch.setenv("nnUNet_n_proc_DA", "0")
        self.patch.setenv("nnUNet_results", str(self.root / f"results{next(self.counter)}"))
        plans = plans_for(cls, settings, folder / f"{self.plans}.json")
        trainer = cls(
            {**plans, "continue_training": False},
            KINDS[kind].configuration,
            fold,
            json.loads((folder / "dataset.json").read_text(encoding="utf-8")),
            torch.device("cpu"),
        )
        if start:
            trainer.initialize()
            trainer.on_train_start()
            trainer.on_train_epoch_start()
        return trainer


@pytest.fixture
def build(
    datasets: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Builder:
    """Build and start trainers of a method, or of a class, on a kind of data set."""
    return Builder(datasets, tmp_path, monkeypatch, itertools.count())


@pytest.fixture
def inserted(
    build: Builder, datasets: Callable[[str], Path]
) -> Iterator[Callable[[str, str], Builder]]:
    """A builder of trainers on plans with an insert, written beside the others for the test."""
    written = []

    def get(name: str, kind: str) -> Builder:
        folder = datasets(kind)
        plans = f"nnUNetPlans-{name}"
        chosen, configuration = [Chosen(name, {})], KINDS[kind].configuration
        write_inserted_plans(folder, "nnUNetPlans", plans, chosen, [configuration])
        written.append(folder / f"{plans}.json")
        return replace(build, plans=plans)

    yield get
    for path in written:
        path.unlink()


@pytest.fixture(scope="session")
def course(
    datasets: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Method, str], Course]:
    """Give a short training of a method on a kind of data set, made at its first use."""
    made: dict[tuple[str, str], Course] = {}
    root = tmp_path_factory.mktemp("courses")

    def get(method: Method, kind: str) -> Course:
        key = (method.trainer, kind)
        if key not in made:
            with pytest.MonkeyPatch.context() as patch:
                folder = root / "_".join(key)
                folder.mkdir()
                made[key] = Course(
                    Builder(datasets, folder, patch, itertools.count()), method, kind, folder
                )
        return made[key]

    return get


@pytest.fixture
def model(
    course: Callable[[Method, str], Course], datasets: Callable[[str], Path], tmp_path: Path
) -> Callable[..., tuple[Path, Path]]:
    """Give a model folder and images of a short training of a method, or of a trainer's name."""

    def get(method: Method | str, kind: str = "labels3d") -> tuple[Path, Path]:
        method = find_method(method) if isinstance(method, str) else method
        kind = fitting(method, kind)
        return make_model(course(method, kind), datasets(kind).name, tmp_path)

    return get


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP on disk."""
    pytest.importorskip("open_clip")
    return make_clip_folder(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture
def with_clip(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That CLIP as the text model."""
    monkeypatch.setenv(text_tower.VARIABLE, str(clip_folder))


@pytest.fixture
def write_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., torch.Tensor]:
    """Writes a features file for the kinds with labels, makes it the one in use, gives vectors."""

    def write(width: int = 24, model: str = "other", seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        vectors = F.normalize(torch.randn(3, width, generator=generator), dim=-1)
        path = tmp_path / "features.npz"
        text_features.TextFeatures(tuple(LABELS), vectors, model, ("x", "y", "z")).save(path)
        monkeypatch.setenv(text_features.VARIABLE, str(path))
        return vectors

    return write


@pytest.fixture
def features(write_features: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Vectors of a features file, of another width than CLIP's."""
    return write_features()
