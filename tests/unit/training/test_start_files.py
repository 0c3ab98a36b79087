"""Files of start weights: what is read, under which names, and what is refused."""

from __future__ import annotations

import os
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from torch import nn

from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.followed import Followed
from nnunet_semisup.training import start_weights
from nnunet_semisup.training.nnssl import renamed
from nnunet_semisup.training.start_files import own_names, read_start_file
from nnunet_semisup.training.start_fit import fitted
from nnunet_semisup.training.start_weights import hear_of_start_weights, tensors_of

WEIGHTS = {"encoder.stages.0.weight": torch.ones(2)}
STAGES = {"key_to_encoder": "encoder.stages", "key_to_stem": "encoder.stem"}


class Harm:
    """Make a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def residual(stages, channels=1):
    """A small network of the kind that nnssl pretrains."""
    return ResidualEncoderUNet(
        input_channels=channels,
        n_stages=stages,
        features_per_stage=[4, 8, 8, 8][:stages],
        conv_op=nn.Conv3d,
        kernel_sizes=3,
        strides=[1, 2, 2, 2][:stages],
        n_blocks_per_stage=1,
        num_classes=2,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU,
    )


def saved(file, network, **plan):
    """An nnssl checkpoint in a file."""
    known = {"architecture_plans": {"arch_class_name": "ResEncL"}, **STAGES, **plan}
    weights = network if isinstance(network, dict) else network.state_dict()
    torch.save({"network_weights": weights, "nnssl_adaptation_plan": known}, file)
    return read_start_file(str(file))


def taken(network, file):
    """What a network of plans without inserts takes."""
    own = tensors_of(network)
    return fitted(own, {n: t.shape for n, t in own.items()}, file, (), "3d_fullres of P")


# Reading.


def test_what_is_no_checkpoint_is_refused_with_what_it_is(tmp_path):
    file = tmp_path / "file.pth"
    with pytest.raises(UserError, match="there is no such file"):
        read_start_file(str(file))
    for content, expected in (
        ({"state_dict": WEIGHTS, "epoch": 3}, "this file has state_dict, epoch"),
        (WEIGHTS, r"this file has encoder\.stages\.0\.weight"),
        ([1], "this file has list"),
        ({"network_weights": {}}, "this file has network_weights"),
    ):
        torch.save(content, file)
        with pytest.raises(UserError, match=expected):
            read_start_file(str(file))
    whole = file.read_bytes()
    for content in (b"", b"text\n", whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read as a checkpoint"):
            read_start_file(str(file))


def test_code_in_a_file_is_named_and_not_run(tmp_path):
    torch.save({"network_weights": WEIGHTS, "x": Harm(tmp_path / "made")}, tmp_path / "file.pth")
    with pytest.raises(UserError, match=r"holds \w+\.mkdir, which is code"):
        read_start_file(str(tmp_path / "file.pth"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("module", ["numpy._core.multiarray", "numpy.core.multiarray"])
def test_numbers_of_numpy_1_and_2_are_read(tmp_path, module):
    """As nnU-Net's log has them, and our random states."""
    more = {"_best_ema": np.float64(0.5), "log": [np.float32(1)], "random": np.random.get_state()}
    torch.save({"network_weights": WEIGHTS, **more}, tmp_path / "before.pth")
    there = np.float64(0).__reduce__()[0].__module__.encode()
    archives = zipfile.ZipFile(tmp_path / "before.pth"), zipfile.ZipFile(tmp_path / "file.pth", "w")
    with archives[0] as before, archives[1] as after:
        for name in before.namelist():
            after.writestr(name, before.read(name).replace(there, module.encode()))
    assert list(read_start_file(str(tmp_path / "file.pth")).weights) == list(WEIGHTS)


def test_a_file_in_torchs_old_format_is_read(tmp_path):
    file = tmp_path / "file.pth"
    torch.save({"network_weights": WEIGHTS}, file, _use_new_zipfile_serialization=False)
    assert read_start_file(str(file)).origin == "an unnamed trainer"


def test_a_checkpoint_of_a_gpu_is_read_without_one(tmp_path, monkeypatch):
    """nnU-Net 2.8.1 loads it to where it was."""
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    torch.save({"network_weights": WEIGHTS}, tmp_path / "file.pth")
    monkeypatch.undo()
    assert b"cuda:0" in (tmp_path / "file.pth").read_bytes()
    (weight,) = read_start_file(str(tmp_path / "file.pth")).weights.values()
    assert torch.equal(weight, torch.ones(2))


# Names.


def test_second_names_of_a_tensor_and_wrappers_do_not_count():
    network = residual(2)
    state = {f"module._orig_mod.{name}": value for name, value in network.state_dict().items()}
    assert set(own_names(state)) == set(tensors_of(network))


def test_a_stage_with_a_part_behind_it_has_the_names_of_the_stage():
    plain, followed = residual(2), residual(2)
    followed.encoder.stages[1] = Followed(followed.encoder.stages[1], nn.Linear(2, 2))
    both = set(tensors_of(followed))
    assert set(tensors_of(plain)) < both
    assert both - set(tensors_of(plain)) == {
        "encoder.stages.1.part.weight",
        "encoder.stages.1.part.bias",
    }


def test_names_of_nnssl_become_those_of_the_plan():
    """Encoders of contrastive methods stand alone, and early plans have other keys."""
    weights = {"net.enc.0.w": 1, "net.enc.1.w": 2, "net.first.w": 3, "projector.w": 4}
    expected = {"encoder.stages.0.w": 1, "encoder.stages.1.w": 2, "projector.w": 4}
    plan = {"key_to_encoder": "net.enc", "key_to_stem": "net.first"}
    assert renamed(weights, plan) == {**expected, "encoder.stem.w": 3}
    early = {f"state_dict_{name}": value for name, value in plan.items()}
    assert renamed(weights, early) == {**expected, "encoder.stem.w": 3}
    within = {"key_to_encoder": "net.enc", "key_to_stem": "net.enc.0"}
    assert renamed(weights, within) == {**expected, "net.first.w": 3}


# What fits.


def test_residual_encoders_of_nnssl_start_deep_and_shallow_networks(tmp_path):
    """A plan of fewer stages takes those that it has, and keeps its own decoder."""
    file = saved(tmp_path / "file.pth", residual(4))
    whole = taken(residual(4), file)
    assert whole.fresh == ["segmentation layers"]
    assert whole.channels == ""
    shallow = taken(residual(3, channels=2), file)
    assert shallow.fresh == ["segmentation layers", "decoder"]
    assert {n.split(".")[0] for n in shallow.loaded} == {"encoder"}
    assert "encoder.stem.convs.0.conv.weight, of one channel, is repeated for 2" in shallow.channels
    assert torch.equal(
        shallow.loaded["encoder.stem.convs.0.conv.weight"][:, 1],
        whole.loaded["encoder.stem.convs.0.conv.weight"][:, 0] / 2,
    )
    with pytest.raises(UserError, match=r"encoder\.stages\.3\.\S+ is not there"):
        taken(residual(4), saved(tmp_path / "file.pth", residual(3)))


def test_an_encoder_alone_starts_an_encoder(tmp_path):
    """Of contrastive pretraining, whose network has no decoder."""
    network = nn.Module()
    network.encoder = residual(3).encoder
    fit = taken(residual(3), saved(tmp_path / "file.pth", network))
    assert fit.fresh == ["segmentation layers", "decoder"]


def test_a_decoder_of_other_channels_stays_fresh_as_a_whole(tmp_path):
    state = residual(3).state_dict()
    name = "decoder.stages.1.convs.0.conv.weight"
    state[name] = state[name][:, :4]
    fit = taken(residual(3), saved(tmp_path / "file.pth", state))
    assert fit.fresh == ["segmentation layers", "decoder"]


@pytest.mark.parametrize(
    "plan",
    [
        {"architecture_plans": {"arch_class_name": "PrimusM"}, "key_to_encoder": "eva"},
        {"architecture_name": "PrimusB", "architecture_plans": None},
        {"architecture_plans": {"arch_class_name": "Other"}, "key_to_encoder": "encoder.eva"},
    ],
)
def test_transformers_are_refused_with_what_fits(tmp_path, plan):
    with pytest.raises(UserError, match=r"file\.pth: .* a transformer .* nnUNetPlannerResEncL"):
        saved(tmp_path / "file.pth", WEIGHTS, **plan)


# nnU-Net's command.


def test_the_command_is_reached_once_and_when_it_is_run_as_a_module(monkeypatch):
    calls = []
    command = SimpleNamespace(maybe_load_checkpoint=lambda *given: calls.append(given))
    monkeypatch.setitem(start_weights.sys.modules, "__mp_main__", command)
    hear_of_start_weights()
    replaced = command.maybe_load_checkpoint
    hear_of_start_weights()
    assert command.maybe_load_checkpoint is replaced
    ours = SimpleNamespace(weights_replaced=None)
    for given in ((object(), True, False, "file"), (ours, False, False), (ours, False, True, "f")):
        replaced(*given)
    assert [len(given) for given in calls] == [4, 4, 4]
