"""Each method's terms and gradients are those of its paper's equations.

The network is a toy without layers; noise, dropout, views and boxes are known ones. What is
compared with is in :mod:`tests.contract.references`.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_semisup.networks.decode import Decoded
from nnunet_semisup.networks.dropout import _dropouts
from nnunet_semisup.networks.training_network import Outputs
from nnunet_semisup.registry import find_method
from nnunet_semisup.trainers import bcp
from nnunet_semisup.training import batches
from tests.contract import references
from tests.contract.references import Step


class Toy(nn.Module):
    """Logits that are a function of each voxel and of its image's mean, one for each member.

    The mean shows which patches were put together.
    """

    def __init__(self, members, outputs, deep):
        super().__init__()
        self.gains = nn.Parameter(torch.linspace(1.0, 1.5, members))
        self.outputs = outputs
        self.deep = deep

    def logits(self, image, member):
        whole = image.mean(tuple(range(1, image.dim())), keepdim=True)
        value = image.mean(1, keepdim=True) + whole
        waves = [torch.sin(value * (1 + c) + member + 2 * c) for c in range(self.outputs)]
        return 2 * self.gains[member] * torch.cat(waves, 1)

    def each(self, image):
        """Return the logits of each member at full and, under deep supervision, half size."""
        images = [image, F.interpolate(image, scale_factor=0.5)] if self.deep else [image]
        return [[self.logits(one, m) for one in images] for m in range(len(self.gains))]

    def forward(self, image, text=None):
        outputs = [each if self.deep else each[0] for each in self.each(image)]
        if len(outputs) == 1:
            return outputs[0]
        return Outputs(outputs[0], tuple(Decoded(one, ()) for one in outputs))


def teacher_logits(toy, image, number):
    """Return what the toy's teacher gives in its n-th pass, as if by dropout."""
    return 1.5 * toy.logits(image + 0.3, 0) * (1 - 0.1 * (number % 4))


def strong(image):
    return 1.2 * image - 0.1


def noise(number):
    return 0.05 * (number + 1)


def box_of(spatial):
    """Return a box off the centre, of odd length along the first axis."""
    box = torch.zeros(1, 1, *spatial, dtype=torch.bool)
    box[(0, 0, slice(2, 9), *[slice(4, 12)] * (len(spatial) - 1))] = True
    return box


def install(trainer, toy, monkeypatch):
    """Put the toy in the place of student and teacher, and known numbers for random ones."""
    monkeypatch.setattr(trainer, "network", toy)
    passes, noises = itertools.count(), itertools.count()

    def teach(image):
        assert not torch.is_grad_enabled()
        assert all(hook.training for hook in _dropouts(trainer.teacher)), "dropout acts"
        return teacher_logits(toy, image, next(passes))

    monkeypatch.setattr(trainer, "_teacher_network", teach, raising=False)
    monkeypatch.setattr(batches, "noisy_view", lambda image: image + noise(next(noises)))
    monkeypatch.setattr(batches, "strong_view", lambda image, probability: strong(image))
    monkeypatch.setattr(bcp, "sample_box", lambda spatial, device, side: box_of(spatial))


def labels_of(trainer, target):
    """Return nnU-Net's target at full resolution and where it is known."""
    full = target[0] if isinstance(target, list) else target
    ignore = trainer.label_manager.ignore_label
    if ignore is None:
        return full.float(), torch.ones_like(full[:, :1], dtype=torch.float32)
    return torch.where(full == ignore, 0, full).float(), (full != ignore).float()


CASES = [
    ("MeanTeacher", references.mean_teacher, 1, {}),
    ("MeanTeacherText", references.mean_teacher, 1, {"text_alignment_weight": 0.0}),
    ("UAMT", references.uamt, 1, {"mc_passes": 3}),
    ("UAMTText", references.uamt, 1, {"mc_passes": 3, "text_alignment_weight": 0.0}),
    ("CPS", references.cps, 2, {}),
    ("MCNet", references.mcnet, 2, {"unlabeled_batch_size": 3, "temperature": 0.5}),
    ("MCNetPlus", references.mcnet, 3, {}),
    ("BCP", references.bcp, 1, {"largest_component": True}),
    ("BCP", references.bcp, 1, {"largest_component": False, "rampup_length": 0.9}),
    ("BCP", references.bcp, 1, {"unlabeled_batch_size": 3}),
    ("BCP", references.bcp, 1, {"mix_start": 0.9}),
    ("BCP", references.bcp, 1, {"labeled_loss": "lomix"}),
    ("BCP", references.bcp, 1, {"labeled_loss": "lomix", "mix_start": 0.9}),
]


@pytest.mark.parametrize("kind", ["labels3d", "regions2d", "ignore3d"])
@pytest.mark.parametrize(
    ("name", "reference", "members", "settings"),
    CASES,
    ids=["-".join([name, *settings]) for name, _, _, settings in CASES],
)
def test_terms_and_gradients(build, monkeypatch, kind, name, reference, members, settings):
    settings = {"num_epochs": 10, "rampup_length": 0.8, **settings}
    trainer = build(find_method(f"nnUNetTrainer{name}"), kind, **settings)
    trainer.current_epoch = 5
    weights = (0.75, 0.25) if reference is references.bcp else (1.0,)
    monkeypatch.setattr(type(trainer), "deep_supervision_weights", weights)
    labeled, unlabeled = trainer.to_device(next(trainer.dataloader_train))
    if len(weights) == 1:  # nnU-Net's loss of one output.
        labeled = labeled._replace(target=labeled.target[0])
        monkeypatch.setattr(trainer, "loss", trainer.loss.loss)
    unlabeled.valid[:, :, :3] = False
    toy = Toy(members, trainer.label_manager.num_segmentation_heads, len(weights) > 1)
    install(trainer, toy, monkeypatch)
    label, known = labels_of(trainer, labeled.target)
    step = Step(
        labeled.image,
        labeled.weak,
        labeled.target,
        label,
        known,
        unlabeled.image,
        unlabeled.valid,
        toy.each,
        lambda image, number: teacher_logits(toy, image, number).detach(),
        noise,
        strong,
        box_of(unlabeled.image.shape[2:]),
        trainer.loss,
        trainer.regions,
        0.5,
        trainer,
    )

    groups = list(trainer.compute_losses(labeled, unlabeled))
    terms = {n: t for group in groups for n, t in group.items() if n[0] != "_"}
    expected = reference(step)
    assert terms.keys() == expected.keys()
    for term, value in expected.items():
        torch.testing.assert_close(terms[term].double(), value.double(), rtol=2e-4, atol=1e-6)
        assert float(value.detach()) != 0
        one, other = (
            torch.autograd.grad(loss, toy.gains, retain_graph=True)[0]
            for loss in (terms[term], value)
        )
        torch.testing.assert_close(one, other, rtol=2e-3, atol=1e-5)
