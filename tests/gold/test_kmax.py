"""The k-means layer against its authors' (2D) and against DK-UXNet's (3D), with their weights.

Those have batch normalisation and a class "void", whose logits have a constant added.
"""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_semisup.networks.kmax import KMaxLayer, Widths
from tests.gold.numbers import close, tensor

SAME = {
    "queries.0": "query_conv1_bn_act.conv",
    "queries.1": "query_conv1_bn_act.norm",
    "pixels.1": "pixel_conv1_bn_act.conv",
    "pixels.2": "pixel_conv1_bn_act.norm",
    "values.0": "pixel_v_conv_bn.conv",
    "values.1": "pixel_v_conv_bn.norm",
    "attention.qkv.0": "query_qkv_conv_bn.conv",
    "attention.qkv.1": "query_qkv_conv_bn.norm",
    "attention.scale": "query_self_attention._batch_norm_similarity",
    "attention.out.0": "query_self_attention._batch_norm_retrieved_value",
    "attention.out.2": "query_conv3_bn.conv",
    "attention.out.3": "query_conv3_bn.norm",
    "perceptron.0": "query_ffn_conv1_bn_act.conv",
    "perceptron.1": "query_ffn_conv1_bn_act.norm",
    "perceptron.3": "query_ffn_conv2_bn.conv",
    "perceptron.4": "query_ffn_conv2_bn.norm",
    "update.0": "kmeans_query_batch_norm_retrieved_value",
    "update.1": "kmeans_query_conv3_bn.conv",
    "update.2": "kmeans_query_conv3_bn.norm",
    "predictor.depthwise": "predcitor._pixel_space_head_conv0bnact.conv",
    "predictor.pixels.0": "predcitor._pixel_space_head_conv0bnact.norm",
    "predictor.pixels.2": "predcitor._pixel_space_head_conv1bnact.conv",
    "predictor.pixels.3": "predcitor._pixel_space_head_conv1bnact.norm",
    "predictor.pixels.5": "predcitor._pixel_space_head_last_convbn.conv",
    "predictor.pixels.6": "predcitor._pixel_space_head_last_convbn.norm",
    "predictor.kernels.0": "predcitor._transformer_mask_head.conv",
    "predictor.kernels.1": "predcitor._transformer_mask_head.norm",
    "predictor.scale": "predcitor._pixel_space_mask_batch_norm",
    "predictor.classes": "predcitor._transformer_class_head.conv",
}
"""Our modules and theirs."""


def layer_of(case):
    """Return the layer with the recorded weights, and the training flag."""

    def weights(name):
        return tensor(case[f"w._{name}"])

    last = "predcitor._pixel_space_head_last_convbn"
    widths = Widths(
        queries=case["query"].shape[1],
        projection=len(weights(f"{SAME['queries.0']}.weight")),
        key=int(case["key_depth"]),
        value=int(case["value_depth"]),
        embedding=len(weights(f"{last}.conv.weight")),
        hidden=len(weights(f"{SAME['perceptron.0']}.weight")),
        heads=int(case["num_heads"]),
    )
    eps, momentum = float(case["bn_eps"]), float(case["bn_momentum"])
    norm = functools.partial(nn.BatchNorm1d, eps=eps, momentum=momentum)
    kernel = weights(f"{SAME['predictor.depthwise']}.weight").shape[2:]
    layer = KMaxLayer(
        case["pixel"].shape[1], widths, case["class_logits"].shape[2], kernel, lambda c, _: norm(c)
    )
    state = layer.state_dict()
    for ours, theirs in SAME.items():
        for key in [key for key in state if key.rpartition(".")[0] == ours]:
            name = key.rpartition(".")[2]
            if name != "num_batches_tracked":
                state[key] = weights(f"{theirs}.{name}").reshape(state[key].shape)
    # Our convolution before a normalisation has no bias, which that takes away again.
    state["predictor.pixels.6.running_mean"] -= weights(f"{last}.conv.bias")
    n = state["predictor.classes.bias"].numel()
    state["predictor.classes.bias"][-1] += math.log((n - 1) * 0.9 / 0.1)
    layer.load_state_dict(state)
    return layer.train(bool(case["training"]))


@pytest.mark.parametrize(("name", "training"), [("kmax_a", False), ("kmax3d_a", True)])
def test_layer(gold, name, training):
    case = gold(name)
    layer = layer_of(case)
    assert layer.training == training
    seen = {}
    for part in ("update", "values", "attention"):
        module = getattr(layer, part)
        module.register_forward_hook(
            lambda _, given, out, part=part: seen.update({part: (given[0], out)})
        )
    embedded = {}
    layer.predictor.pixels.register_forward_hook(lambda *a: embedded.update(pixels=a[2]))
    pixels, queries = (tensor(case[k]).requires_grad_() for k in ("pixel", "query"))
    out, assigned = layer(pixels, queries)
    close(out, case["out_query"], 2e-5)
    close(assigned.masks, case["mask_logits"], 2e-5)
    close(assigned.classes.transpose(1, 2), case["class_logits"], 2e-5)
    close(seen["values"][1], case["pixel_value"].reshape(seen["values"][1].shape), 2e-5)
    close(seen["update"][0], case["kmeans_update"], 2e-4)
    close(seen["update"][1], case["kmeans_delta"], 2e-5)
    close(seen["attention"][1], case["self_attention_delta"], 2e-5)
    unit = F.normalize(embedded["pixels"], dim=1)
    close(unit, case["pixel_normalised"].reshape(unit.shape), 2e-5)
    chosen = F.one_hot(assigned.masks.flatten(2).argmax(1), assigned.masks.shape[1])
    assert torch.equal(chosen.transpose(1, 2).byte(), torch.from_numpy(case["assignment"]))
    loss = (
        (out * tensor(case["probe_query"])).sum()
        + (assigned.masks * tensor(case["probe_mask"])).sum()
        + (assigned.classes.transpose(1, 2) * tensor(case["probe_class"])).sum()
    )
    for found, expected in zip(
        torch.autograd.grad(loss, (pixels, queries)), ("grad_pixel", "grad_query"), strict=True
    ):
        close(found, case[expected], 5e-5)
