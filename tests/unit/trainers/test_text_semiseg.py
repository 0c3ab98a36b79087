from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from nnunet_semisup.trainers.text_semiseg import nnUNetTrainerTextSemiSeg
from nnunet_semisup.training.ranks import Ranks

LOSSES = (([1.0, 0.5], [0.2, 2.0]), ([0.5, 1.0], [2.0, 0.2]))
"""Of the two decoders, by case and rank: each rank alone would decide differently."""


def decide(losses, distributed):
    """What a trainer decides for the losses of its two decoders on this rank."""
    trainer = SimpleNamespace(ranks=Ranks(distributed))
    return nnUNetTrainerTextSemiSeg.second_is_better(trainer, losses)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("case", "second_better"), [(0, False), (1, True)])
def test_ranks_with_opposite_losses_decide_alike(monkeypatch, rank, case, second_better):
    own, other = (torch.tensor(LOSSES[case][number]) for number in (rank, 1 - rank))
    before = own.clone()
    assert bool(decide(own, distributed=False)) == (rank == case)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda losses: losses.add_(other))
    assert bool(decide(own, distributed=True)) == second_better
    assert torch.equal(own, before), "the loss that is logged is this rank's"


def test_a_tie_goes_to_the_decoder_that_predicts():
    assert not decide(torch.tensor([0.5, 0.5]), distributed=False)
