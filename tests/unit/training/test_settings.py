"""Settings: what a class declares, what the variable overrides, and what a recorded run keeps."""

from __future__ import annotations

import json
from typing import ClassVar, Literal

import pytest

from nnunet_semisup import trainers
from nnunet_semisup.errors import UserError
from nnunet_semisup.registry import METHODS
from nnunet_semisup.trainers.vqseg import nnUNetTrainerVQSeg
from nnunet_semisup.training.ranges import Count, Fraction, Weight
from nnunet_semisup.training.settings import (
    CONFIG_NAME,
    STOCK,
    VARIABLE,
    Seed,
    Settings,
    read_recorded,
    split_assignments,
)


class Base:
    decay: Fraction = 0.9
    threshold: Fraction | None = 0.95
    seed: Seed | None = None
    cpu_threads: Count | None = None
    fixed: ClassVar[int] = 3
    unset: int


class Method(Base):
    size: Count | None = None
    mode: Literal["fast", "slow", "ok"] = "fast"
    flag: bool = False
    stages: tuple[int, ...] = (1, 2)
    weight: Weight = 1.0


class TestSplit:
    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ("", {}),
            ("a=1", {"a": "1"}),
            (" a = 1 , b=x ", {"a": "1", "b": "x"}),
            ("a=(1,2),b=[3,(4,5)],c=6", {"a": "(1,2)", "b": "[3,(4,5)]", "c": "6"}),
            ("a=1,", {"a": "1"}),
            ("a=b=c", {"a": "b=c"}),
        ],
    )
    def test_reads(self, text, wanted):
        assert split_assignments(text) == wanted

    @pytest.mark.parametrize("text", ["a", "a=", "=1", "a=1,b", "a 1"])
    def test_refuses_what_is_no_assignment(self, text):
        with pytest.raises(UserError, match="name=value"):
            split_assignments(text)

    def test_refuses_a_name_given_twice(self):
        with pytest.raises(UserError, match="'a' is given twice"):
            split_assignments("a=1,a=2")


class TestOf:
    def test_empty(self, monkeypatch):
        monkeypatch.delenv(VARIABLE, raising=False)
        settings = Settings.of(Method)
        assert settings.given == {}
        assert settings.values["decay"] == 0.9
        assert "num_epochs" in settings.kinds
        assert "num_epochs" not in settings.values, "nnU-Net's constructor sets it"

    def test_reads_the_variable(self, monkeypatch):
        monkeypatch.setenv(VARIABLE, "num_epochs=7,mode=slow,stages=(3,4)")
        settings = Settings.of(Method)
        assert settings.given == {"num_epochs": 7, "mode": "slow", "stages": (3, 4)}
        assert settings.values == {
            "decay": 0.9,
            "threshold": 0.95,
            "seed": None,
            "cpu_threads": None,
            "size": None,
            "mode": "slow",
            "flag": False,
            "stages": (3, 4),
            "weight": 1.0,
            "num_epochs": 7,
        }

    def test_unknown_names_list_the_valid_ones(self):
        with pytest.raises(UserError) as caught:
            Settings.of(Method, "decai=0.5,flag=True,sise=3,unset=1,fixed=2,num_epochs=2.5")
        message = str(caught.value)
        assert message.startswith("nnUNet_semisup_set: num_epochs=2.5 ")
        told = "decai (is decay meant?), sise (is size meant?), unset, fixed. It has:"
        assert f"Method has no hyper-parameter {told}" in message
        for line in (
            "decay: float (0 to 1)",
            "size: int (at least 1) or None",
            "mode: fast | slow | ok",
            "stages: list of int",
            "num_epochs: int (at least 1)",
        ):
            assert f"\n  {line}" in message

    @pytest.mark.parametrize("name", [name for name, kind in STOCK.items() if kind is Count])
    @pytest.mark.parametrize("value", [0, -5])
    def test_counts_below_one(self, name, value):
        with pytest.raises(UserError, match=f"{name}={value} must be at least 1"):
            Settings.of(Method, f"{name}={value}")

    @pytest.mark.parametrize("name", ["initial_lr", "weight_decay"])
    def test_negative_rates(self, name):
        with pytest.raises(UserError, match=f"{name}=-0.1 must be at least 0"):
            Settings.of(Method, f"{name}=-0.1")

    def test_a_share_of_foreground_is_no_percentage(self):
        """nnU-Net's name says percent, its default is 0.33."""
        name = "oversample_foreground_percent"
        with pytest.raises(UserError, match=f"{name}=33.0 must be between 0 and 1"):
            Settings.of(Method, f"{name}=33")
        assert Settings.of(Method, f"{name}=1").given == {name: 1.0}

    @pytest.mark.parametrize("method", METHODS, ids=lambda method: method.trainer)
    def test_no_trainer_takes_a_negative_seed(self, method):
        trainer = getattr(trainers, method.trainer)
        with pytest.raises(UserError, match="seed=-5 must be at least 0"):
            Settings.of(trainer, "seed=-5")
        assert Settings.of(trainer, "seed=0").given == {"seed": 0}
        assert Settings.of(trainer, "seed=none").given == {"seed": None}

    @pytest.mark.parametrize("method", METHODS, ids=lambda method: method.trainer)
    def test_defaults_and_trial_settings_of_every_trainer_are_in_range(self, method):
        trainer = getattr(trainers, method.trainer)
        assert Settings.of(trainer, "").faults() == []
        assert Settings.of(trainer, method.trial).faults() == []

    def test_all_faults_are_named_at_once(self):
        with pytest.raises(UserError) as caught:
            Settings.of(Method, "decay=much,num_epochs=0,initial_lr=-1,flag=2,weight=-2,mode=ok")
        assert set(str(caught.value).splitlines()) == {
            f"{VARIABLE}: decay=much is not of type float (0 to 1).",
            f"{VARIABLE}: flag=2 is not of type bool.",
            f"{VARIABLE}: num_epochs=0 must be at least 1.",
            f"{VARIABLE}: initial_lr=-1.0 must be at least 0.",
            f"{VARIABLE}: weight=-2.0 must be at least 0.",
        }

    def test_a_default_of_ones_own_out_of_range_is_a_fault(self):
        class Mine(Method):
            weight: float = -1.0

        with pytest.raises(UserError, match=r"weight=-1\.0 must be at least 0"):
            Settings.of(Mine, "")


class TestContinuing:
    RUN: ClassVar[dict] = {"decay": 0.5, "mode": "slow", "num_epochs": 9, "seed": 4, "flag": True}

    def test_a_runs_own_values_count(self):
        values = Settings.of(Method, "").continuing(self.RUN).values
        assert {name: values[name] for name in self.RUN} == self.RUN
        assert values["threshold"] == 0.95

    def test_what_is_set_anew_counts_but_for_the_seed(self):
        settings = Settings.of(Method, "decay=0.1,num_epochs=20,seed=77").continuing(self.RUN)
        values = settings.values
        assert (values["decay"], values["num_epochs"], values["seed"]) == (0.1, 20, 4)
        assert values["mode"] == "slow"
        assert settings.given == {"decay": 0.1, "num_epochs": 20, "seed": 77}

    def test_threads_are_the_machines(self):
        assert Settings.of(Method, "").continuing({"cpu_threads": 8}).values["cpu_threads"] is None

    def test_names_and_types_of_other_releases_are_left_out(self):
        recorded = {"gone": 1, "mode": "quick", "flag": "yes", "decay": 1, "stages": [4]}
        values = Settings.of(Method, "").continuing(recorded).values
        assert "gone" not in values
        assert (values["mode"], values["flag"]) == ("fast", False)
        assert values["decay"] == 1.0
        assert type(values["decay"]) is float
        assert values["stages"] == (4,), "as JSON has tuples"

    def test_a_recorded_value_out_of_range_is_refused(self):
        with pytest.raises(UserError, match=r"decay=3\.0 must be between 0 and 1"):
            Settings.of(Method, "").continuing({"decay": 3})

    def test_continuing_twice_changes_nothing(self):
        """The record is read twice: from the folder, then from the checkpoint."""
        once = Settings.of(Method, "size=3").continuing(self.RUN)
        assert once.continuing(self.RUN) == once

    def test_settings_themselves_stay_as_they_are(self):
        settings = Settings.of(Method, "")
        before = dict(settings.values)
        settings.continuing(self.RUN)
        settings.with_defaults({"num_epochs": 3})
        assert settings.values == before


class TestChanges:
    def test_what_is_set_to_another_value_is_said(self):
        settings = Settings.of(Method, "decay=0.1,mode=slow,size=2,seed=3")
        recorded = {"decay": 0.5, "mode": "slow", "seed": 4, "flag": True}
        assert settings.changes(recorded) == ["decay was 0.5 and is now 0.1"]

    def test_nothing_given_changes_nothing(self):
        assert Settings.of(Method, "").changes({"decay": 0.5}) == []


class TestDefaults:
    def test_fill_only_what_neither_class_nor_run_has(self):
        settings = Settings.of(Method, "initial_lr=0.5").with_defaults(
            {"initial_lr": 0.1, "weight_decay": 0.2, "decay": 0.3}
        )
        values = settings.values
        assert (values["initial_lr"], values["weight_decay"], values["decay"]) == (0.5, 0.2, 0.9)
        assert settings.given == {"initial_lr": 0.5}, "a default is not set by the user"


class TestReadRecorded:
    def test_of_a_folder(self, tmp_path):
        (tmp_path / CONFIG_NAME).write_text(json.dumps({"hyperparameters": {"decay": 0.5}}))
        assert read_recorded(str(tmp_path)) == {"decay": 0.5}

    @pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"hyperparameters": 3}'])
    def test_nothing_where_it_cannot_be_read(self, tmp_path, content):
        if content is not None:
            (tmp_path / CONFIG_NAME).write_text(content)
        assert read_recorded(str(tmp_path)) == {}


class TestVQSegRanges:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "foundation_model=none",
            "qpm_mode=uniform",
            "qpm_epsilon=0",
            "qpm_view=weak",
            "confidence_threshold=None",
            "reconstruction_weight=0",
            "unlabeled_batch_size=none",
        ],
    )
    def test_accepts(self, text):
        Settings.of(nnUNetTrainerVQSeg, text)

    @pytest.mark.parametrize(
        "text",
        [
            "qpm_mode=nearest",
            "qpm_view=both",
            "foundation_model=clip",
            "qpm_epsilon=1.2",
            "qpm_rampup=-0.1",
            "qpm_perplexity=0",
            "calibrate_every=0",
            "usage_tokens=0",
            "usage_weight=-1",
            "alignment_weight=-1",
            "alignment_temperature=0",
            "confidence_threshold=2",
            "ema_decay=-0.5",
            "unlabeled_batch_size=0",
            "cutmix_probability=3",
            "dice_weight=-1",
            "optimizer_name=adam",
        ],
    )
    def test_refuses_and_names_it(self, text):
        with pytest.raises(UserError, match=text.split("=")[0]):
            Settings.of(nnUNetTrainerVQSeg, text)
