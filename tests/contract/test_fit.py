"""The estimate of a step's memory, and what is chosen by it for a GPU."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import replace

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_semisup.cli.plans import main
from nnunet_semisup.errors import UserError
from nnunet_semisup.registry import METHODS, find_method
from nnunet_semisup.training import fit
from nnunet_semisup.training.memory import Step
from tests.contract.conftest import trainer_class

PSEUDO_LABEL, MCNET = (find_method(f"nnUNetTrainer{name}") for name in ("PseudoLabel", "MCNet"))


@pytest.fixture
def step(build):
    trainer = build(PSEUDO_LABEL, "labels3d", start=False)
    trainer.initialize()
    return Step(type(trainer), trainer.planned_network, (32, 32, 32), 2, 2)


def test_more_is_needed_for_more(step):
    least = step.bytes()
    more = (
        Step(step.trainer, step.plan, (64, 32, 32), 2, 2),
        Step(step.trainer, step.plan, step.patch, 2, 8),
        Step(trainer_class(MCNET), step.plan, step.patch, 2, 2),
        Step(step.trainer, step.plan, step.patch, 2, 2, mixed=False),
    )
    assert all(other.bytes() > 1.2 * least for other in more)
    assert Step(step.trainer, step.plan, step.patch, 2, 2, again=True).bytes() < 0.9 * least


def test_the_first_that_fits_is_chosen(step, monkeypatch):
    monkeypatch.setattr(fit, "CONTEXT", 0.0)
    gib = step.bytes() / fit.GIB
    assert fit.fitting(step, gib) == (step, gib)
    choice, needed = fit.fitting(step, 0.95 * gib)
    assert choice.again
    assert choice.unlabeled == 2
    assert needed < 0.95 * gib
    choice, needed = fit.fitting(step, 1e-6)
    assert choice is None
    assert 0 < needed < gib


def test_activations_are_not_computed_again_where_that_is_refused(step, monkeypatch):
    """By plans with batch normalisation, whose running means a second run would move."""
    monkeypatch.setattr(fit, "CONTEXT", 0.0)
    plans = deepcopy(step.plan.plans_manager.plans)
    arguments = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    arguments["norm_op"] = "torch.nn.modules.batchnorm.BatchNorm3d"
    manager = PlansManager(plans)
    configuration = manager.get_configuration("3d_fullres")
    plan = replace(step.plan, plans_manager=manager, configuration_manager=configuration)
    normalised = replace(step, plan=plan)
    choice, _ = fit.fitting(normalised, 0.99 * normalised.bytes() / fit.GIB)
    assert (choice.unlabeled, choice.again) == (1, False)
    with pytest.raises(UserError, match="count each batch twice"):
        replace(normalised, again=True).bytes()


def chosen_by(capsys, datasets, *arguments):
    name = datasets("labels3d").name
    arguments = arguments if "-c" in arguments else (*arguments, "-c", "3d_fullres")
    with pytest.raises(SystemExit) as ended:
        main(["-d", name, *arguments])
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def test_the_command_names_settings_that_the_trainer_takes(build, datasets, capsys):
    given = ("--fit", "24", "-tr", PSEUDO_LABEL.trainer, MCNET.trainer)
    code, out, _ = chosen_by(capsys, datasets, *given)
    assert code == 0
    assert re.findall(r"(nnUNetTrainer\w+): ([\d.]+) GiB with", out) == [
        (PSEUDO_LABEL.trainer, "1.0"), (MCNET.trainer, "1.0"),
    ]  # fmt: skip
    setting = re.findall(r'nnUNet_semisup_set="(.*)"', out)[0]
    chosen = dict(part.split("=") for part in setting.split(","))
    assert build(PSEUDO_LABEL, "labels3d", start=False, **chosen).unlabeled_batch_size == 2


def test_all_that_can_be_estimated(datasets, capsys):
    _, out, _ = chosen_by(capsys, datasets, "--fit", "0.5")
    solid = [m for m in METHODS if m.uses_unlabeled and 3 in m.dims]
    expected = [m.trainer for m in solid if m.unlabeled_at_once]
    assert re.findall(r"(nnUNetTrainer\w+): needs 1.0 GiB at least, not 0.5", out) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--fit", "-1"), "give the GPU's memory in GiB, more than 0"),
        (("--fit", "8", "-c", "2d_"), "has no configuration 2d_"),
        (("--fit", "8", "-p", "Other"), "Other.json does not exist"),
        (("--fit", "8", "-tr", "nnUNetTrainerVCLIPSeg"), "no estimate of the memory"),
        (("--insert", "nsda"), "give their name with -o NAME"),
    ],
)
def test_what_is_refused(datasets, capsys, arguments, words):
    code, _, err = chosen_by(capsys, datasets, *arguments)
    assert code == 2
    assert words in err
