"""Class texts as a guest of other trainers."""

from __future__ import annotations

import re
from importlib import import_module

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from nnunet_semisup.foundation import text_tower
from nnunet_semisup.networks.text_unet import TextUNet
from nnunet_semisup.trainers import (
    TextGuidance,
    nnUNetTrainerARCO,
    nnUNetTrainerBCP,
    nnUNetTrainerCPS,
    nnUNetTrainerDKUXNet,
    nnUNetTrainerMCNet,
    nnUNetTrainerMeanTeacherText,
    nnUNetTrainerPseudoLabel,
    nnUNetTrainerUAMTText,
    nnUNetTrainerVQSeg,
)
from tests.project import ROOT
from tests.text_models import make_clip_folder
from tests.unit.trainers.shared import step


class BCPText(TextGuidance, nnUNetTrainerBCP):
    """BCP with texts."""


class MCNetText(TextGuidance, nnUNetTrainerMCNet):
    """MC-Net with texts."""


class CPSText(TextGuidance, nnUNetTrainerCPS):
    """CPS with texts."""


class PseudoLabelText(TextGuidance, nnUNetTrainerPseudoLabel):
    """Pseudo-labels with texts."""


class ARCOText(TextGuidance, nnUNetTrainerARCO):
    """ARCO with texts, whose teacher follows the training network with its heads."""


class DKUXNetText(TextGuidance, nnUNetTrainerDKUXNet):
    """DK-UXNet with texts."""


class VQSegText(TextGuidance, nnUNetTrainerVQSeg):
    """Texts around a network that quantizes its features."""


class TextVQSeg(nnUNetTrainerVQSeg, TextGuidance):
    """The quantizer around a network with texts."""


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    pytest.importorskip("open_clip")
    return make_clip_folder(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture
def with_clip(clip_folder, monkeypatch):
    monkeypatch.setenv(text_tower.VARIABLE, str(clip_folder))


def lengths(texts):
    return texts.norm(dim=-1)


def learned(build, cls):
    """Train four steps with learned prompts; return the trainer and the texts of each step."""
    trainer = build(cls, num_iterations_per_epoch=9, initial_lr=1.0)
    texts = []
    for number in range(4):
        step(trainer, number)
        texts.append(trainer.student.text_features.clone())
    return trainer, texts


@pytest.mark.parametrize("cls", [nnUNetTrainerMeanTeacherText, nnUNetTrainerUAMTText])
def test_the_teachers_texts_keep_their_length_while_prompts_learn(build, with_clip, cls):
    trainer, texts = learned(build, cls)
    assert not torch.allclose(texts[0], texts[-1], atol=1e-3), "prompts that learn"
    teachers = trainer.teacher.module.text_features
    assert not torch.allclose(teachers, texts[-1], atol=1e-3), "an average"
    torch.testing.assert_close(lengths(teachers), torch.ones(3))


def test_an_average_of_unit_vectors_is_shorter(build, with_clip, monkeypatch):
    """The reason for bringing them back to length."""
    monkeypatch.setattr(TextGuidance, "after_step", lambda self: None)
    trainer, _ = learned(build, nnUNetTrainerMeanTeacherText)
    assert (lengths(trainer.teacher.module.text_features) < 0.999).any()


@pytest.mark.parametrize(
    ("cls", "settings", "passes"),
    [
        (nnUNetTrainerUAMTText, {}, {"labeled", "unlabeled"}),
        (PseudoLabelText, {}, {"labeled", "unlabeled"}),
        (BCPText, {"mix_start": 0, "largest_component": False}, {"mixed_in", "mixed_out"}),
        (MCNetText, {}, {"labeled", "unlabeled"}),
        (CPSText, {}, {"labeled", "unlabeled"}),
        (ARCOText, {"pretrain": 0.0}, {"labeled", "unlabeled"}),
        (ARCOText, {"pretrain": 1.0}, {"labeled", "unlabeled"}),
        (DKUXNetText, {}, {"labeled", "unlabeled"}),
    ],
)
def test_two_lines_bring_texts_into_every_pass(build, cls, settings, passes):
    trainer = build(cls, text_model="random", **settings)
    before = {name: p.clone() for name, p in trainer.network.named_parameters()}
    terms = step(trainer)
    assert {n.removeprefix("alignment_") for n in terms if "alignment" in n} == passes
    assert all(terms[f"alignment_{name}"] > 0 for name in passes)
    moved = {n for n, p in trainer.network.named_parameters() if not torch.equal(p, before[n])}
    assert any("interaction" in name for name in moved)
    assert any("projection" in name for name in moved)


@pytest.mark.parametrize("cls", [BCPText, MCNetText, CPSText])
def test_one_process_of_a_distributed_training_trains_alike(build, request, monkeypatch, cls):
    settings = {"text_model": "random"}
    if cls is BCPText:
        settings["mix_start"] = 0
    alone = build(cls, **settings)
    expected = [step(alone, number)["loss"] for number in range(2)]
    request.getfixturevalue("one_process")
    module = import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    monkeypatch.setattr(module, "DDP", lambda network, device_ids: DistributedDataParallel(network))
    trainer = build(cls, **settings)
    assert isinstance(trainer.network, DistributedDataParallel)
    assert [step(trainer, number)["loss"] for number in range(2)] == pytest.approx(expected)


@pytest.mark.parametrize("shared", [True, False])
def test_padding_of_both_views_is_not_aligned(build, monkeypatch, shared):
    trainer = build(DKUXNetText, text_model="random", shared=shared)
    given, align = {}, trainer.aligned_terms

    def aligned(seen, name, text, valid):
        given[name] = valid
        return align(seen, name, text, valid)

    monkeypatch.setattr(trainer, "aligned_terms", aligned)
    step(trainer)
    assert given["labeled"] is None
    assert len(given["unlabeled"]) == (4 if shared else 2)


@pytest.mark.parametrize("text_model", ["random", "none"])
def test_each_of_two_networks_reads_the_same_texts(build, text_model):
    trainer = build(CPSText, text_model=text_model)
    readers = [m for m in trainer.training_network.modules() if isinstance(m, TextUNet)]
    assert len(readers) == 2
    seen = []

    def watched(interact):
        def interacts(visual, text=None):
            seen.append(text)
            return interact(visual, text)

        return interacts

    for reader in readers:
        reader.interact = watched(reader.interact)
    step(trainer)
    if text_model == "none":
        assert all(reader.interaction is None for reader in readers)
        return
    assert len(seen) >= 4
    assert all(text is not None for text in seen)
    assert all(torch.equal(text, trainer.class_text.features) for text in seen)


@pytest.mark.parametrize("cls", [VQSegText, TextVQSeg])
@pytest.mark.parametrize("text_model", ["random", "none"])
def test_texts_around_a_network_that_changes_its_features_are_refused(build, cls, text_model):
    """Either would undo the other's change, and nothing would say so."""
    with pytest.raises(TypeError, match=r"cannot be added to (VQUNet|TextUNet)"):
        build(cls, text_model=text_model)


def test_the_page_shows_how(build):
    page = (ROOT / "docs" / "methods" / "text_semiseg.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict = {"__name__": __name__}
    exec(block, names)
    (cls,) = (c for c in names.values() if isinstance(c, type) and c.__name__.endswith("Text"))
    trainer = build(cls, text_model="random", mix_start=0, largest_component=False)
    assert "alignment_mixed_in" in step(trainer)
