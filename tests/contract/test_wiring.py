"""Each trainer hands the right tensors to the right loss: what its algorithm box says.

Of the methods that are not compared with their equations as a whole (``test_equations.py``).
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nnunet_semisup.losses.schedules import sigmoid_rampup
from nnunet_semisup.losses.targets import PseudoLabel
from nnunet_semisup.networks.decode import Decoded
from nnunet_semisup.registry import find_method
from tests.contract.conftest import SEMI_SUPERVISED, each_method

PSEUDO_LABEL, VQSEG, TEXT = (
    find_method(f"nnUNetTrainer{name}") for name in ("PseudoLabel", "VQSeg", "TextSemiSeg")
)


def late(build, method, **settings):
    """Build a trainer in the middle of its training, where every term has its full weight."""
    trainer = build(method, "labels3d", **{"num_epochs": 10, "rampup_length": 0.1, **settings})
    trainer.current_epoch = 5
    return trainer


def patches(trainer):
    return trainer.to_device(next(trainer.dataloader_train))


def of_image(image):
    """Logits of three classes that are a function of each voxel's intensity alone."""
    return torch.cat([image, -image, 0.3 - image.square()], 1) * 40


@pytest.mark.parametrize("method", [PSEUDO_LABEL, VQSEG], ids=lambda m: m.trainer)
class TestPseudoLabels:
    def seen(self, build, monkeypatch, method, **settings):
        """Images that the student got and labels that its loss got, with a known teacher."""
        trainer = late(build, method, **settings)
        labeled, unlabeled = patches(trainer)
        unlabeled.valid.fill_(True)
        images, labels = [], []
        monkeypatch.setattr(trainer, "teacher_logits", of_image)
        forward = trainer.network.forward

        def watched(image, *rest, **named):
            images.append(image)
            return forward(image, *rest, **named)

        monkeypatch.setattr(trainer.network, "forward", watched)
        loss = trainer.pseudo_label_loss

        def recorded(logits, label):
            labels.append(label)
            return loss(logits, label)

        monkeypatch.setattr(trainer, "pseudo_label_loss", recorded)
        list(trainer.compute_losses(labeled, unlabeled))
        (label,) = labels
        assert torch.equal(images[0], labeled.image)
        return unlabeled, images[1], label

    def test_image_and_label_are_mixed_alike_and_labeled_by_the_teacher(
        self, build, monkeypatch, method
    ):
        unlabeled, image, label = self.seen(
            build, monkeypatch, method, strong_probability=0.0, confidence_threshold=0.9
        )
        assert not torch.equal(image, unlabeled.image), "CutMix did nothing"
        probs = of_image(image).softmax(1)
        assert torch.equal(label.target, probs.argmax(1, keepdim=True))
        sure = (probs.amax(1, keepdim=True) >= 0.9).float()
        assert 0 < sure.mean() < 1
        assert torch.equal(label.weight, sure)

    def test_the_student_sees_the_strong_view(self, build, monkeypatch, method):
        settings = {"strong_probability": 1.0, "cutmix_probability": 0.0}
        unlabeled, image, label = self.seen(build, monkeypatch, method, **settings)
        assert not torch.isclose(image, unlabeled.image, atol=1e-3).all(dim=(1, 2, 3, 4)).any()
        assert torch.equal(label.target, of_image(unlabeled.image).argmax(1, keepdim=True))


@each_method([method for method in SEMI_SUPERVISED if method.ramp])
def test_unlabeled_terms_follow_their_ramp(build, monkeypatch, method):
    trainer = build(method, "labels2d", num_epochs=10, rampup_length=1.0)
    batch = patches(trainer)
    monkeypatch.setattr(type(trainer), "current_unlabeled_weight", 1.0)

    def consistency():
        torch.manual_seed(0)
        groups = trainer.compute_losses(*batch)
        terms = {k: v for group in groups for k, v in group.items() if k.startswith("consistency")}
        return float(sum(term.detach() for term in terms.values()))

    full = consistency()
    assert full > 0
    monkeypatch.undo()
    trainer.current_epoch = 4
    expected = trainer.unlabeled_weight * sigmoid_rampup(0.4, 1.0)
    assert trainer.current_unlabeled_weight == pytest.approx(expected)
    trainer.current_epoch = 0
    assert consistency() == pytest.approx(full * trainer.current_unlabeled_weight, rel=1e-3)


@pytest.mark.parametrize("view", ["strong", "weak"])
def test_swaps_have_their_share(build, view):
    trainer = late(build, VQSEG, qpm_epsilon=0.6, qpm_view=view, qpm_rampup=0.1, qpm_mode="uniform")
    *_, last = trainer.compute_losses(*patches(trainer))
    assert float(last["_perturbed"]) == pytest.approx(0.6, abs=0.1)


def test_decoders_label_each_other_and_the_better_one_labels_mixed_images(build, monkeypatch):
    trainer = late(build, TEXT)
    monkeypatch.setattr(trainer, "second_is_better", lambda _: torch.tensor(True))
    labeled, unlabeled = patches(trainer)
    classes = {0: 1, 1: 2}
    forward, losses = trainer.network.forward, []

    def decided(image, text, which=(0, 1)):
        """Let each decoder predict a class of its own everywhere."""
        output = forward(image, text, which=which)
        parts = []
        for decoder, part in zip(which, output.parts, strict=True):
            vote = 100 * F.one_hot(torch.tensor(classes[decoder]), 3).view(1, 3, 1, 1, 1)
            parts.append(Decoded([logits + vote for logits in part.logits], ()))
        return output._replace(logits=parts[0].logits, parts=tuple(parts))

    def recorded(logits, label):
        predicted = int(trainer.full_resolution(logits).argmax(1).unique())
        losses.append((predicted, label))
        return logits.mean()

    monkeypatch.setattr(trainer.network, "forward", decided)
    monkeypatch.setattr(trainer, "segmentation_loss", recorded)
    list(trainer.compute_losses(labeled, unlabeled))
    first, second, *mixed = losses
    assert (first[0], first[1].target.unique().tolist()) == (1, [2])
    assert (second[0], second[1].target.unique().tolist()) == (2, [1])
    of_unlabeled: PseudoLabel = mixed[1][1]
    assert mixed[1][0] == 1, "the worse decoder learns"
    assert of_unlabeled.target[unlabeled.valid].unique().tolist() == [2]
