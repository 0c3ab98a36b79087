from __future__ import annotations

from typing import ClassVar

import pytest

from nnunet_semisup import trainers
from nnunet_semisup.errors import UserError
from nnunet_semisup.registry import METHODS
from nnunet_semisup.trainers.text_semiseg import nnUNetTrainerTextSemiSeg
from nnunet_semisup.trainers.vqseg import nnUNetTrainerVQSeg
from nnunet_semisup.training import hyperparameters
from nnunet_semisup.training.hyperparameters import (
    OF_THE_TEACHER,
    STOCK,
    convert,
    declared,
    describe,
    read_overrides,
    split_assignments,
)


class Base:
    decay: float = 0.9
    threshold: float | None = 0.95
    fixed: ClassVar[int] = 3
    unset: int


class Method(Base):
    size: int | None = None
    mode: str = "fast"
    flag: bool = False
    stages: tuple[int, ...] = (1, 2)
    not_annotated = 4


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


class TestConvert:
    @pytest.mark.parametrize(
        ("text", "kind", "value"),
        [
            ("3", int, 3),
            ("-3", int, -3),
            ("3", float, 3.0),
            ("1e-3", float, 1e-3),
            ("True", bool, True),
            ("false", bool, False),
            ("none", float | None, None),
            ("None", int | None, None),
            ("0.5", float | None, 0.5),
            ("4", float | None, 4.0),
            ("fast", str, "fast"),
            ("'fast'", str, "fast"),
            ("none", str, "none"),
            ("None", str, "None"),
            ("true", str, "true"),
            ("12", str, "12"),
            ("(1,2)", tuple[int, ...], (1, 2)),
            ("[1,2]", tuple[int, ...], (1, 2)),
            ("7", tuple[int, ...], (7,)),
            ("(1,2.5)", tuple[float, ...], (1.0, 2.5)),
        ],
    )
    def test_reads(self, text, kind, value):
        got = convert("name", text, kind)
        assert got == value
        assert type(got) is type(value)

    @pytest.mark.parametrize(
        ("text", "kind", "described"),
        [
            ("2.5", int, "int"),
            ("True", int, "int"),
            ("True", float, "float"),
            ("many", float, "float"),
            ("nan", float, "float"),
            ("1", bool, "bool"),
            ("none", float, "float"),
            ("high", float | None, "float or None"),
            ("(1,2.5)", tuple[int, ...], "list of int"),
            ("__import__('os')", float, "float"),
        ],
    )
    def test_refuses_another_type(self, text, kind, described):
        with pytest.raises(UserError, match=f"not of type {described}") as caught:
            convert("name", text, kind)
        assert f"name={text}" in str(caught.value)

    def test_describe(self):
        assert describe(int | None) == "int or None"
        assert describe(tuple[int, ...]) == "list of int"


class TestDeclared:
    def test_annotated_attributes_with_a_value_and_nnunets_own(self):
        own = {"decay", "threshold", "size", "mode", "flag", "stages"}
        assert set(declared(Method)) == own | set(STOCK)

    def test_of_a_trainer(self):
        found = declared(nnUNetTrainerVQSeg)
        assert found["qpm_epsilon"] is float
        assert found["seed"] == int | None
        assert "use_teacher" not in found
        assert "network" not in found

    def test_a_trainer_without_a_teacher_has_no_settings_of_one(self):
        assert set(OF_THE_TEACHER) <= set(declared(nnUNetTrainerVQSeg))
        assert not set(OF_THE_TEACHER) & set(declared(nnUNetTrainerTextSemiSeg))


class TestReadOverrides:
    def test_empty(self, monkeypatch):
        monkeypatch.delenv(hyperparameters.VARIABLE, raising=False)
        assert read_overrides(Method) == {}

    def test_reads_the_variable(self, monkeypatch):
        monkeypatch.setenv(hyperparameters.VARIABLE, "num_epochs=7,mode=slow,stages=(3,4)")
        assert read_overrides(Method) == {"num_epochs": 7, "mode": "slow", "stages": (3, 4)}

    def test_unknown_names_list_the_valid_ones(self):
        with pytest.raises(UserError) as caught:
            read_overrides(Method, "decai=0.5,flag=True,sise=3,unset=1,fixed=2")
        message = str(caught.value)
        assert "decai, sise, unset, fixed" in message
        for line in ("decay: float", "size: int or None", "stages: list of int", "num_epochs: int"):
            assert f"  {line}" in message

    @pytest.mark.parametrize("name", sorted(set(hyperparameters.POSITIVE) & set(STOCK)))
    @pytest.mark.parametrize("value", [0, -5])
    def test_counts_below_one(self, name, value):
        with pytest.raises(UserError, match=f"{name}={value} must be at least 1"):
            read_overrides(Method, f"{name}={value}")

    @pytest.mark.parametrize("name", sorted(set(hyperparameters.NOT_NEGATIVE) & set(STOCK)))
    def test_negative_rates(self, name):
        with pytest.raises(UserError, match=f"{name}=-0.1 must be at least 0"):
            read_overrides(Method, f"{name}=-0.1")

    def test_a_share_of_foreground_is_no_percentage(self):
        """nnU-Net's name says percent, its default is 0.33."""
        name = "oversample_foreground_percent"
        with pytest.raises(UserError, match=f"{name}=33.0 is a fraction, at most 1"):
            read_overrides(Method, f"{name}=33")
        assert read_overrides(Method, f"{name}=1") == {name: 1.0}

    @pytest.mark.parametrize("method", METHODS, ids=lambda method: method.trainer)
    def test_no_trainer_takes_a_negative_seed(self, method):
        trainer = getattr(trainers, method.trainer)
        with pytest.raises(UserError, match="seed=-5 must be at least 0"):
            read_overrides(trainer, "seed=-5")
        assert read_overrides(trainer, "seed=0") == {"seed": 0}
        assert read_overrides(trainer, "seed=none") == {"seed": None}

    def test_all_faults_are_named_at_once(self):
        with pytest.raises(UserError) as caught:
            read_overrides(Method, "decay=much,num_epochs=0,initial_lr=-1,flag=2,mode=ok")
        message = str(caught.value)
        for name in ("decay=much", "num_epochs=0", "initial_lr=-1", "flag=2"):
            assert name in message
        assert "mode" not in message


class TestVQSegRanges:
    @staticmethod
    def check(text):
        values = {
            name: getattr(nnUNetTrainerVQSeg, name)
            for name in declared(nnUNetTrainerVQSeg)
            if hasattr(nnUNetTrainerVQSeg, name)
        }
        nnUNetTrainerVQSeg.check_hyperparameters(
            {**values, **read_overrides(nnUNetTrainerVQSeg, text)}
        )

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
        self.check(text)

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
        ],
    )
    def test_refuses_and_names_it(self, text):
        with pytest.raises(UserError, match=text.split("=")[0]):
            self.check(text)
