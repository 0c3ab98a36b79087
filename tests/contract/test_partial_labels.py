"""Cases with labels of some classes only, in trainers with a teacher and in the supervised one."""

from __future__ import annotations

import json

import pytest
import torch

from nnunet_semisup.errors import UserError
from nnunet_semisup.registry import find_method
from nnunet_semisup.training.passes import Pass
from tests.contract.conftest import WITH_TEACHER, each_method, each_pair, fitting, one_of_each

TEACHERS = one_of_each("compute_losses", "supervised_terms", among=WITH_TEACHER)


@pytest.fixture
def partly(datasets):
    """Say that a class of some cases was not annotated, for the time of a test."""
    written = []

    def write(kind, cases=("lab_000", "lab_001")):
        file = datasets(kind) / "labeled_classes.json"
        written.append(file)
        file.write_text(json.dumps(dict.fromkeys(cases, ["whole"] if "regions" in kind else ["a"])))

    yield write
    for file in written:
        file.unlink(missing_ok=True)


def terms_of(trainer, labeled, unlabeled):
    groups = list(trainer.compute_losses(labeled, unlabeled))
    return {name: value for group in groups for name, value in group.items()}


@each_pair(
    [
        *((method, "labels3d") for method in TEACHERS),
        (TEACHERS[0], "regions3d"),
        (TEACHERS[0], "ignore3d"),
    ]
)
def test_every_method_with_a_teacher_trains_on_them(build, partly, method, kind, request):
    """Terms are finite, and a step runs."""
    if "text" in method.module:
        request.getfixturevalue("with_clip")
    partly(fitting(method, kind))
    trainer = build(method, kind, fill_start=1.0)
    batch = next(trainer.dataloader_train)
    labeled, unlabeled = trainer.to_device(batch)
    assert labeled.gaps is not None
    first = labeled.gaps.unknown
    first = first[0] if isinstance(first, list) else first
    assert first.any()
    assert trainer.with_filled_gaps(labeled) is labeled
    terms = terms_of(trainer, labeled, unlabeled)
    assert all(torch.as_tensor(value).isfinite().all() for value in terms.values())
    assert torch.as_tensor(trainer.train_step(batch)["loss"]).isfinite()


@pytest.mark.parametrize("kind", ["labels3d", "regions3d"])
def test_the_teacher_fills_from_its_start_on(build, partly, kind):
    partly(kind)
    method = find_method("nnUNetTrainerPseudoLabel")
    trainer = build(method, kind, fill_start=0.0, fill_confidence=0.0)
    labeled, _ = trainer.to_device(next(trainer.dataloader_train))
    new = trainer.with_filled_gaps(labeled)
    before, after = (x.gaps.unknown[0].sum() for x in (labeled, new))
    assert after < before
    teacher = trainer.teacher_logits(labeled.image)
    target, full = new.target[0], labeled.target[0]
    taken = labeled.gaps.unknown[0] & ~new.gaps.unknown[0]
    guess = (teacher > 0).float() if kind == "regions3d" else teacher.argmax(1, keepdim=True)
    channels = taken.shape[1]
    assert torch.equal(target[:, :channels][taken], guess[taken].to(target.dtype))
    assert torch.equal(target[:, :channels][~taken], full[:, :channels][~taken])


def test_the_supervised_trainer_leaves_open_classes_open(build, partly):
    """Its loss is nnU-Net's of merged logits; without the file, that of labels as they are."""
    losses = []
    for said in (None, ("lab_000", "lab_001"), ("lab_002",)):
        if said:
            partly("labels3d", said)
        trainer = build(find_method("nnUNetTrainerSupervised"), "labels3d")
        losses.append(float(trainer.train_step(next(trainer.dataloader_train))["loss"]))
    assert losses[1] != losses[0]
    assert losses[2] == losses[0]  # that case is validated on


@each_method([find_method("nnUNetTrainerCPS"), find_method("nnUNetTrainerDTC")])
def test_trainers_without_a_teacher_refuse_them(build, partly, method):
    partly("labels3d")
    with pytest.raises(UserError, match="take classes that were not annotated for background"):
        build(method, "labels3d", start=False)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("nnUNetTrainerLoMix", {}), ("nnUNetTrainerPseudoLabel", {"labeled_loss": "lomix"})],
)
def test_mixtures_are_made_before_open_classes_are_merged(build, partly, name, settings):
    """A convolution of what stands for "never" would have a gradient of thousands."""
    norms = []
    for said in (False, True):
        if said:
            partly("labels3d")
        trainer = build(find_method(name), "labels3d", **settings)
        trainer.train_step(next(trainer.dataloader_train))
        grads = [p.grad for p in trainer._outside.parameters() if p.grad is not None]
        norms.append(float(torch.stack([grad.norm() for grad in grads]).norm()))
    assert 0 < norms[1] < 10 * norms[0]


MIXING = [
    ("nnUNetTrainerSemiSup", {"labeling_start": 0.0, "label_confidence": 0.0}, "labeled"),
    ("nnUNetTrainerBCP", {"mix_start": 1.0}, "labeled"),
    ("nnUNetTrainerBCP", {"mix_start": 1.0}, "previous"),
    ("nnUNetTrainerBCP", {"mix_start": 0.0}, "labeled"),
    ("nnUNetTrainerBCP", {"mix_start": 0.0}, "pasted"),
]
"""Trainer, settings, and which image is there everywhere."""


@pytest.mark.parametrize(("name", "settings", "box"), MIXING)
def test_a_mixed_image_says_which_class_an_open_voxel_is_not(
    build, partly, monkeypatch, name, settings, box
):
    """It may be background or the class that was not annotated, so that both gain."""
    partly("labels3d", ("lab_000",))
    trainer = build(find_method(name), "labels3d", fill_start=1.0, **settings)
    batches = (trainer.to_device(next(trainer.dataloader_train)) for _ in range(20))
    labeled, unlabeled = next(b for b in batches if (b[0].gaps.unknown[0] > 0).any())
    everywhere = torch.full_like(labeled.target[0][:, :1], box != "labeled", dtype=torch.bool)
    monkeypatch.setattr(type(trainer), "boxes", lambda *_: everywhere, raising=False)
    monkeypatch.setattr("nnunet_semisup.trainers.bcp.sample_box", lambda *_: everywhere[:1])
    seen = []

    def zeros(image, *_):
        sizes = [one.shape[2:] for one in labeled.target]
        seen.append([torch.zeros(len(image), 3, *size, requires_grad=True) for size in sizes])
        return Pass(seen[-1], None, {}, {})

    trainer.student_pass = zeros
    groups = list(trainer.compute_losses(labeled, unlabeled))
    sum(value for one in groups for key, value in one.items() if key[0] != "_").backward()
    logits = seen[1 if box == "pasted" else 0][0]
    open_ = labeled.gaps.unknown[0].roll(1, 0) if box == "previous" else labeled.gaps.unknown[0]
    assert (logits.grad[:, 1:2][open_] > 0).all()
    assert (logits.grad[:, 0:1][open_] < 0).all()
    assert (logits.grad[:, 2:3][open_] < 0).all()
