"""What a measurement says it was made on."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.benchmark.execute import visible_gpu
from nnunet_semisup.benchmark.machine import processor
from nnunet_semisup.networks import bfloat16


@pytest.mark.parametrize(("lacks", "told"), [(True, "(AVX2, no bfloat16)"), (False, "(AVX2)")])
def test_instructions_stand_behind_the_name(monkeypatch, lacks, told):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(bfloat16, "lacks_instructions", lambda: lacks)
    name, _, instructions = processor().rpartition(" (")
    assert name
    assert f"({instructions}" == told


@pytest.mark.parametrize("there", [True, False])
def test_without_onednn_nothing_is_known(monkeypatch, there):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: there)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert bfloat16.lacks_instructions() == there


@pytest.mark.parametrize(
    ("given", "seen"), [(None, "1"), ("", "1"), ("2,3", "3"), ("GPU-ab, GPU-cd", "GPU-cd")]
)
def test_a_number_of_a_gpu_counts_among_those_that_are_seen(monkeypatch, given, seen):
    """A scheduler hides the others, and their numbers belong to somebody else."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpu(1) == seen
