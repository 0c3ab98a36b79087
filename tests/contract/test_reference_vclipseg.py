"""VCLIPSeg's terms, from its equations."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.networks.text_fusion import ClassTextFusion
from nnunet_semisup.trainers import nnUNetTrainerVCLIPSeg
from tests.contract.steps import KINDS, chances, dice_loss, full, ready, terms_of, truth_of


def passed(trainer, image):
    """Return both decoders' outputs and the projected features before the fusion."""
    network, text = trainer.training_network, trainer.class_text.features
    assert isinstance(trainer.student.interaction, ClassTextFusion)
    features, visual = trainer.student.encode_with(image, text)
    decoders = trainer.student.decoder, network.inner.others[0]
    return [decoder(features) for decoder in decoders], network.projection(visual).double()


def dissimilarity(trainer, visual, right):
    """Return one minus the mean cosine of the classes found, feature by feature at full size."""
    for axis in range(2, visual.ndim):
        visual = visual.repeat_interleave(right.shape[axis] // visual.shape[axis], axis)
    vectors, cosines = visual.movedim(1, -1), []
    for number, text in enumerate(trainer.class_text.features.double()):
        found = vectors[right[:, number]]
        if len(found):
            mean = found.mean(0)
            cosines.append(mean @ text / mean.norm() / text.norm())
    assert cosines
    return 1 - torch.stack(cosines).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_terms(build, kind):
    trainer, labeled, unlabeled = ready(build, nnUNetTrainerVCLIPSeg, kind, rampup_length=0.0)
    truth, known = truth_of(trainer, labeled)
    with torch.no_grad():
        outputs, visual = passed(trainer, labeled.image)
        losses = [trainer.loss(one, labeled.target) for one in outputs]
        probs = [chances(full(one), trainer.regions) for one in outputs]
        answers = [one.argmax(2) for one in probs]
        right = (answers[0] == answers[1]) & known
        if trainer.regions:
            right = right & (answers[0] == 1) & (truth[:, :, 1] == 1)
        else:
            right = right & (answers[0] == truth.argmax(2))
            numbers = range(truth.shape[2])
            right = torch.cat([right & (answers[0] == number) for number in numbers], 1)
        similarity = dissimilarity(trainer, visual, right)

        better = [torch.tensor(-dice_loss(one, truth, known)).double().sigmoid() for one in probs]
        first = 1 / (1 + torch.exp(better[1] - better[0]))  # 1 - sigmoid(d) is sigmoid(-d).
        outputs, _ = passed(trainer, unlabeled.image)
        probs = [chances(full(one), trainer.regions) for one in outputs]
        answer = (first * probs[0] + (1 - first) * probs[1]).argmax(2, keepdim=True)
        there = unlabeled.valid.expand(answer.shape[0], answer.shape[1], *answer.shape[3:])
        label = torch.zeros_like(probs[0]).scatter(2, answer, 1.0)
        taught = [
            -one.gather(2, answer)[:, :, 0].log()[there].mean() + dice_loss(one, label, there)
            for one in probs
        ]
    expected = {
        "supervised_1": losses[0],
        "supervised_2": losses[1],
        "share_1": first,
        "similarity": 0.5 * similarity,
        "consistency_1": taught[0],
        "consistency_2": taught[1],
    }
    terms = {n.lstrip("_"): v for n, v in terms_of(trainer, labeled, unlabeled).items()}
    assert terms == pytest.approx({n: float(v) for n, v in expected.items()}, rel=1e-4)


def test_nothing_is_aligned_with_texts_that_are_not_there(build):
    trainer, labeled, unlabeled = ready(
        build, nnUNetTrainerVCLIPSeg, "regions2d", text_model="none", rampup_length=0.0
    )
    names = set(terms_of(trainer, labeled, unlabeled))
    supervised = {"supervised_1", "supervised_2", "_share_1"}
    assert names == {*supervised, "consistency_1", "consistency_2"}
