"""Every trainer refuses what nnU-Net could not train before it makes a folder."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_semisup import registry
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation import fold_cases
from nnunet_semisup.trainers import nnUNetTrainerPseudoLabel, nnUNetTrainerSupervised

TRAINERS = [nnUNetTrainerPseudoLabel, nnUNetTrainerSupervised]


@pytest.fixture
def edit(datasets: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Changes a JSON file of the preprocessed data set for the duration of a test."""
    originals = {}

    def change(name: str, how: Callable[[Any], Any]) -> None:
        path = datasets("labels3d") / name
        originals[path] = path.read_text(encoding="utf-8")
        content = json.loads(originals[path])
        path.write_text(json.dumps(how(content) or content))

    yield change
    for path, text in originals.items():
        path.write_text(text)


def test_unlabeled_images_are_listed_once(build, monkeypatch):
    """By the check before the training, whose result the streams and the notes take."""
    listed = []
    unlabeled_ids = fold_cases.unlabeled_ids
    monkeypatch.setattr(
        fold_cases, "unlabeled_ids", lambda name: listed.append(name) or unlabeled_ids(name)
    )
    trainer = build(nnUNetTrainerPseudoLabel, "labels3d")
    next(trainer.dataloader_train)
    assert len(listed) == 1
    assert len(trainer.configuration()["unlabeled_cases"]) == 3


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Changes the registry's row of a trainer for the duration of a test."""

    def declare(trainer: type, **fields: Any) -> Any:
        rows = [
            replace(method, **fields) if method.trainer == trainer.__name__ else method
            for method in registry.METHODS
        ]
        monkeypatch.setattr(registry, "METHODS", tuple(rows))
        return type("nnUNetTrainerMine", (trainer,), {})  # A user's own, on its row.

    return declare


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("labels3d", {"dims": (2,)}, "trains in 2D, and the patches of 3d_fullres have 3 dim"),
        ("labels2d", {"dims": (3,)}, "trains in 3D, .*; in these plans it can train nothing"),
        ("regions2d", {"labels": ("classes",)}, "trains with classes, and .* has regions"),
        (
            "ignore3d",
            {"labels": ("classes", "regions")},
            "trains with classes, regions, .* has ignore label",
        ),
    ],
)
def test_what_the_registry_does_not_list_is_refused(
    build, only, tmp_path, trainer, kind, fields, said
):
    with pytest.raises(UserError, match=f"(?s)nothing was written.*{trainer.__name__} {said}"):
        build(only(trainer, **fields), kind, start=False)
    assert not list(tmp_path.glob("results*"))


def test_all_of_it_is_told_and_which_configuration_fits(build, only, edit):
    edit("nnUNetPlans.json", two_stages)
    with pytest.raises(UserError, match=r"(?s)it can train 2d\n.*enable_deep_supervision=False"):
        build(only(nnUNetTrainerPseudoLabel, dims=(2,)), "labels3d", start=False)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_fold_without_validation_cases_is_refused(build, edit, tmp_path, trainer):
    """nnU-Net 2.8.1 fails after the first epoch, with a message about its workers."""
    edit("splits_final.json", lambda folds: folds[0].update(val=[]))
    with pytest.raises(UserError, match=r"splits_final\.json, fold 0: 'val' is empty"):
        build(trainer, "labels3d", start=False)
    assert not list(tmp_path.glob("results*"))


def two_stages(plans: dict[str, Any]) -> None:
    """What nnU-Net plans for images of 12 voxels on every axis."""
    kwargs = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    kwargs["n_stages"] = 2
    for name in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage"):
        kwargs[name] = kwargs[name][:2]
    kwargs["n_conv_per_stage_decoder"] = [1]


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_plan_with_a_single_output_trains_as_the_message_says(build, edit, tmp_path, trainer):
    edit("nnUNetPlans.json", two_stages)
    with pytest.raises(UserError, match=r"enable_deep_supervision=False"):
        build(trainer, "labels3d", start=False)
    assert not list(tmp_path.glob("results*"))
    made = build(trainer, "labels3d", enable_deep_supervision=False)
    loss = made.train_step(next(made.dataloader_train))["loss"]
    assert abs(float(loss)) < 10


def test_the_weight_of_a_single_output_is_not_a_number(build, edit, monkeypatch):
    """What the check is for: nnU-Net 2.8.1 divides 0 by 0."""
    edit("nnUNetPlans.json", two_stages)
    monkeypatch.setattr("nnunet_semisup.training.inputs.check_fold", lambda *_: None)
    with pytest.warns(RuntimeWarning, match="invalid value encountered in divide"):
        made = build(nnUNetTrainerSupervised, "labels3d")
    loss = made.train_step(next(made.dataloader_train))["loss"]
    assert float(loss) != float(loss)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_gpu_that_is_not_there_is_told_before_a_folder_is_made(build, monkeypatch, trainer):
    """nnU-Net's default is a GPU, and its own message is a traceback of torch."""
    first = build(trainer, "labels3d", start=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plans = {**first.plans_manager.plans, "continue_training": False}
    made = set(Path(first.output_folder_base).parent.rglob("*"))
    with pytest.raises(UserError, match="sees no such GPU here"):
        trainer(plans, "3d_fullres", 0, first.dataset_json, torch.device("cuda"))
    assert set(Path(first.output_folder_base).parent.rglob("*")) == made
