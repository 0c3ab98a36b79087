"""Types of hyper-parameters: what a class declares, and what of a text fits."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Annotated, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_semisup import trainers
from nnunet_semisup.registry import METHODS
from nnunet_semisup.trainers import nnUNetTrainerTextSemiSeg, nnUNetTrainerVQSeg
from nnunet_semisup.training.kinds import coerce, convert, declared, describe, range_fault
from nnunet_semisup.training.ranges import AtLeast, Between, Count, Fraction, Weight
from nnunet_semisup.training.settings import STOCK, hyperparameters_of


class Base:
    decay: Fraction = 0.9
    threshold: Fraction | None = 0.95
    fixed: ClassVar[int] = 3
    unset: int


class Method(Base):
    size: Count | None = None
    mode: Literal["fast", "slow"] = "fast"
    flag: bool = False
    stages: tuple[int, ...] = (1, 2)
    not_annotated = 4
    _hidden: int = 5


class Variant(Method):
    """Gives other defaults, written as types without ranges."""

    decay: float = 0.5
    threshold: float | None = None
    num_epochs: int = 7
    size: int = 3


class TestDeclared:
    def test_annotated_attributes_with_a_value(self):
        assert set(declared(Method)) == {"decay", "threshold", "size", "mode", "flag", "stages"}
        assert declared(Method)["decay"] == Fraction

    def test_another_default_keeps_the_range(self):
        assert declared(Variant)["decay"] == Fraction
        assert declared(Variant)["threshold"] == declared(Base)["threshold"]
        assert hyperparameters_of(Variant)["num_epochs"] == Count
        assert declared(Variant)["num_epochs"] is int, "nnU-Net's ranges are nnU-Net's"

    def test_another_type_is_another_type(self):
        assert declared(Variant)["size"] is int

    def test_of_a_trainer(self):
        found = hyperparameters_of(nnUNetTrainerVQSeg)
        assert found["qpm_epsilon"] == Fraction
        assert describe(found["seed"]) == "int (at least 0) or None"
        assert set(STOCK) <= set(found)
        assert not {"labeled_weak", "labeled_maps", "network", "teacher", "iteration"} & set(found)

    def test_a_trainer_without_a_teacher_has_no_settings_of_one(self):
        of_the_teacher = {"ema_decay", "predict_with_teacher"}
        assert of_the_teacher <= set(declared(nnUNetTrainerVQSeg))
        assert not of_the_teacher & set(declared(nnUNetTrainerTextSemiSeg))

    def test_text_that_refers_to_a_forgotten_module(self):
        """nnU-Net takes modules of ``nnUNet_extTrainer`` out of ``sys.modules``."""
        module = ModuleType("forgotten")
        code = (
            "from __future__ import annotations\n"
            "from nnunet_semisup.training.ranges import Weight\n"
            "Kind = int\n"
            "class Mine:\n"
            "    rate: Optional[Weight] = None\n"
            "    steps: Kind = 5\n"
            "    def method(self): ...\n"
        )
        exec(code, vars(module))
        cls = module.Mine
        assert cls.__module__ not in sys.modules
        assert declared(cls) == {"rate": Weight | None, "steps": int}

    @pytest.mark.parametrize("method", METHODS, ids=lambda method: method.trainer)
    def test_every_number_of_every_method_has_a_range(self, method):
        """A weight below 0 or a probability of 33 would train without a word."""
        kinds = hyperparameters_of(getattr(trainers, method.trainer))
        for name, kind in kinds.items():
            words = describe(kind).replace(" or None", "")
            assert words not in ("int", "float", "list of int", "list of float"), name


class TestConvert:
    @pytest.mark.parametrize(
        ("text", "kind", "value"),
        [
            ("3", int, 3),
            ("-3", int, -3),
            ("3", float, 3.0),
            ("3", Weight, 3.0),
            ("1e-3", float, 1e-3),
            ("True", bool, True),
            ("false", bool, False),
            ("none", float | None, None),
            ("None", Count | None, None),
            ("0.5", Fraction | None, 0.5),
            ("4", float | None, 4.0),
            ("fast", str, "fast"),
            ("'fast'", str, "fast"),
            ("none", str, "none"),
            ("None", str, "None"),
            ("true", str, "true"),
            ("12", str, "12"),
            ("slow", Literal["fast", "slow"], "slow"),
            ("'slow'", Literal["fast", "slow"], "slow"),
            ("none", Literal["none", "dinov2"], "none"),
            ("2", Literal[1, 2], 2),
            ("(1,2)", tuple[int, ...], (1, 2)),
            ("[1,2]", tuple[int, ...], (1, 2)),
            ("7", tuple[int, ...], (7,)),
            ("(1,2.5)", tuple[float, ...], (1.0, 2.5)),
            ("(0,1)", tuple[Fraction, ...], (0.0, 1.0)),
        ],
    )
    def test_reads(self, text, kind, value):
        got = convert(text, kind)
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
            ("none", Weight, "float (at least 0)"),
            ("high", float | None, "float or None"),
            ("high", Fraction | None, "float (0 to 1) or None"),
            ("(1,2.5)", tuple[int, ...], "list of int"),
            ("__import__('os')", float, "float"),
        ],
    )
    def test_refuses_another_type(self, text, kind, described):
        with pytest.raises(ValueError, match="is not of type") as caught:
            convert(text, kind)
        assert str(caught.value) == f"is not of type {described}"

    @pytest.mark.parametrize("text", ["fast", "None", "3"])
    def test_refuses_what_is_no_choice_and_lists_them(self, text):
        with pytest.raises(ValueError, match=r"must be one of calibrated, uniform$"):
            convert(text, Literal["calibrated", "uniform"])

    @pytest.mark.parametrize("text", ["True", "1.0"])
    def test_a_choice_has_its_type(self, text):
        with pytest.raises(ValueError, match="must be one of 1, 2"):
            convert(text, Literal[1, 2])

    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_every_number_is_read_as_it_is_written(self, number):
        assert convert(repr(number), Weight) == number


class TestRange:
    @given(st.floats())
    def test_a_fraction_lies_within_0_and_1(self, number):
        assert (range_fault(number, Fraction) is None) == (0 <= number <= 1)
        assert (range_fault(number, Fraction | None) is None) == (0 <= number <= 1)

    @given(st.integers())
    def test_a_count_is_at_least_1(self, number):
        assert (range_fault(number, Count) is None) == (number >= 1)

    @given(st.floats())
    def test_a_weight_is_not_negative_and_nan_is_none(self, number):
        assert (range_fault(number, Weight) is None) == (number >= 0)

    @pytest.mark.parametrize(
        ("kind", "value", "demand"),
        [
            (Fraction, 1.5, "between 0 and 1"),
            (Annotated[float, Between(0.01, 1)], 0.0, "between 0.01 and 1"),
            (Annotated[int, Between(1, 32)], 33, "between 1 and 32"),
            (Weight, -1.0, "at least 0"),
            (Annotated[float, AtLeast(1e-3)], 0.0, "at least 0.001"),
            (Count | None, 0, "at least 1"),
            (tuple[Fraction, ...], (0.5, 2.0), "between 0 and 1"),
            (Literal["a", "b"], "c", "one of a, b"),
            (Literal["a", "b"] | None, "c", None),
        ],
    )
    def test_says_what_a_value_must_be(self, kind, value, demand):
        assert range_fault(value, kind) == demand

    @pytest.mark.parametrize("kind", [Count | None, Annotated[int | None, AtLeast(1)], int, str])
    def test_none_is_in_every_range(self, kind):
        assert range_fault(None, kind) is None

    def test_other_notes_of_an_annotation_demand_nothing(self):
        assert range_fault(-1, Annotated[int, "seconds"]) is None


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int | None, "int or None"),
        (tuple[int, ...], "list of int"),
        (Fraction, "float (0 to 1)"),
        (Fraction | None, "float (0 to 1) or None"),
        (Count, "int (at least 1)"),
        (Annotated[float, AtLeast(1e-3)], "float (at least 0.001)"),
        (Literal["fast", "slow"], "fast | slow"),
        (tuple[Fraction, ...], "list of float (0 to 1)"),
    ],
)
def test_types_are_described_as_a_person_writes_them(kind, words):
    assert describe(kind) == words


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()))
def test_a_value_that_fits_has_the_type_asked_for(value):
    result, fits = coerce(value, float | None)
    assert fits == (value is None or type(value) in (int, float))
    assert not fits or result is None or type(result) is float
