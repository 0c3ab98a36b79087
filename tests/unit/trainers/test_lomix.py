"""``labeled_loss=lomix``: where it cannot act, what a run can go on with, how it is optimized."""

from __future__ import annotations

import pytest

from nnunet_semisup.errors import UserError
from nnunet_semisup.trainers import (
    nnUNetTrainerBSNet,
    nnUNetTrainerLoMix,
    nnUNetTrainerPseudoLabel,
    nnUNetTrainerSSNet,
)
from tests.unit.trainers import shared
from tests.unit.trainers.shared import save, step


@pytest.fixture
def deeper(build, monkeypatch):
    """The builder of trainers, with a network of three outputs, of which nnU-Net supervises two."""
    monkeypatch.setattr(shared, "FEATURES", [4, 8, 8, 8])
    return build


@pytest.mark.parametrize(
    ("cls", "given"),
    [(nnUNetTrainerPseudoLabel, {"labeled_loss": "lomix"}), (nnUNetTrainerLoMix, {})],
)
def test_it_is_refused_where_there_is_nothing_to_mix(build, cls, given, tmp_path):
    with pytest.raises(UserError, match=f"{cls.__name__}.*network of 2d has 2, .*larger patches"):
        build(cls, **given)
    with pytest.raises(UserError, match="enable_deep_supervision=False leaves the network one"):
        build(cls, enable_deep_supervision=False, **given)
    assert not list((tmp_path / "results").rglob("*"))


def test_the_last_but_one_output_is_enough(deeper):
    trainer = deeper(nnUNetTrainerPseudoLabel, labeled_loss="lomix")
    assert {subset for _, subset in trainer._outside["lomix"].mixtures} == {(0, 1)}


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        ({"labeled_loss": "lomix"}, {"labeled_loss": "nnunet"}, "with labeled_loss=lomix"),
        ({"labeled_loss": "nnunet"}, {"labeled_loss": "lomix"}, "with labeled_loss=nnunet"),
        (
            {"labeled_loss": "lomix", "lomix_weights": "log"},
            {"lomix_weights": "softplus"},
            "with lomix_weights=log",
        ),
        ({"labeled_loss": "nnunet"}, {"lomix_weights": "log"}, None),
    ],
)
def test_a_run_goes_on_with_its_own_labeled_loss(deeper, first, then, said):
    trainer = deeper(nnUNetTrainerPseudoLabel, **first)
    step(trainer)
    file = save(trainer)
    again = deeper(nnUNetTrainerPseudoLabel, continues=True, **then)
    if said is None:
        again.load_checkpoint(file)
        return
    with pytest.raises(UserError, match=f"{said}.*start anew without --c"):
        again.load_checkpoint(file)


@pytest.mark.parametrize("cls", [nnUNetTrainerSSNet, nnUNetTrainerBSNet])
def test_what_methods_train_outside_stays_beside_it(deeper, cls):
    trainer = deeper(cls, labeled_loss="lomix", lomix_weights="log")
    assert len(trainer._outside) == 2
    assert all(value == value for value in step(trainer).values())
    lomix = trainer._outside["lomix"]
    assert lomix.raw.grad.abs().max() > 0
    groups = trainer.clipped_apart()
    assert [id(p) for p in lomix.parameters()] in [[id(p) for p in group] for group in groups]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weights_and_convolutions_are_optimized(deeper, optimizer):
    settings = {"labeled_loss": "lomix", "lomix_weights": "log", "optimizer_name": optimizer}
    trainer = deeper(nnUNetTrainerPseudoLabel, **settings)
    before = [p.detach().clone() for p in trainer._outside.parameters()]
    step(trainer)
    changed = [
        bool((p != old).any()) for p, old in zip(trainer._outside.parameters(), before, strict=True)
    ]
    assert all(changed)


def test_a_subclass_adds_the_product(deeper):
    class WithProduct(nnUNetTrainerLoMix):
        """LoMix by all operators of the paper."""

        lomix_operators = ("add", "mult", "cat", "awf")

    trainer = deeper(WithProduct)
    assert ("mult", (0, 1)) in trainer._outside["lomix"].mixtures
