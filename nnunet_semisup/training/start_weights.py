"""Weights of another training to start from: nnU-Net's ``-pretrained_weights`` for every trainer.

nnU-Net's own function (2.8.1, ``nnunetv2.run.load_pretrained_weights``) asks the file for every key
of the network in training, so that one with further parts is refused. It runs whatever code the
file holds, reads a GPU's checkpoint on a GPU only, and knows no trainer: a teacher, which is a copy
of the network, would stay as it was. Here the trainer is given the file.

What is loaded: the network that predicts, without its segmentation layers, as in nnU-Net. What
starts fresh: parts that only training has, decoders of further members, and inserted or predicting
parts that the file does not have in the same shape. A second network (CPS, ABD, BS-Net) gets the
encoder and keeps its own decoder: two networks with the same weights would agree from the first
step and teach each other nothing, and in [0] both start from the same pretrained encoder and from
decoders that differ. A teacher starts as the student.

[0] Chen et al., Semi-supervised semantic segmentation with cross pseudo supervision, CVPR 2021.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from os.path import join
from typing import Any

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import Size, Tensor, nn

from nnunet_semisup.architectures.planned_unet import base_of
from nnunet_semisup.errors import UserError, exit_code_two_in_commands
from nnunet_semisup.networks.members import Members
from nnunet_semisup.preparation.folds import read_splits
from nnunet_semisup.preparation.layout import SPLITS_FILE
from nnunet_semisup.training.start_files import FLAG, StartFile, plain_name, read_start_file
from nnunet_semisup.training.start_fit import SHOWN, Fit, fitted, parts_of, prefixes

COMMAND = "nnunetv2.run.run_training"


# The way into nnU-Net's command.


def hear_of_start_weights() -> None:
    """Make nnU-Net's training command tell our trainers of ``-pretrained_weights``.

    The command's ``maybe_load_checkpoint(trainer, ...)`` is the one place that knows trainer and
    file (nnU-Net 2.8): replaced in the module of the command, it does for other trainers, and
    without the flag, what it did. A setting of our own would leave the flag a trap, and within the
    network the file's name is not known.
    """
    for name in (COMMAND, "__main__", "__mp_main__"):
        command: Any = sys.modules.get(name)
        stock = getattr(command, "maybe_load_checkpoint", None)
        if stock is not None and not getattr(stock, "tells_our_trainers", False):
            command.maybe_load_checkpoint = _telling(stock)


def _telling(stock: Any) -> Any:
    @functools.wraps(stock)
    def maybe_load_checkpoint(
        trainer: Any,
        continue_training: bool,
        validation_only: bool,
        pretrained_weights_file: str | None = None,
    ) -> None:
        ours = hasattr(trainer, "weights_replaced") and not validation_only
        if not ours or pretrained_weights_file is None:
            stock(trainer, continue_training, validation_only, pretrained_weights_file)
            return
        with exit_code_two_in_commands():
            if continue_training:
                raise UserError(
                    f"{FLAG} starts a training and --c continues one, with the weights it has. "
                    "Leave one of them out."
                )
            start_from(trainer, pretrained_weights_file)

    telling: Any = maybe_load_checkpoint
    telling.tells_our_trainers = True
    return telling


def start_from(trainer: Any, path: str) -> None:
    """Start a training from the weights of a file, and log what came from where.

    Args:
        trainer: whose training has not begun.
        path: of a file that :func:`~nnunet_semisup.training.start_files.read_start_file` reads.

    Raises:
        UserError: the file is none, or its weights do not fit; the trainer's are as they were.
    """
    file = read_start_file(path)
    if not trainer.was_initialized:
        trainer.initialize()
    network = trainer.training_network
    predictor = getattr(network, "predictor", network)
    own = tensors_of(predictor)
    place = f"{trainer.configuration_name} of {trainer.plans_manager.plans_name}"
    fit = fitted(own, plain_shapes(trainer), file, _stays(predictor, file), place)
    with torch.no_grad():
        for name in fit.loaded:
            own[name].copy_(fit.loaded[name])
        others = [
            _start_other(tensors_of(other), own, fit)
            for other in _further_members(network, shared_encoder=False)
        ]
    trainer.weights_replaced()
    trainer.start_weights = {"file": file.path, "origin": file.origin}
    fresh = [*fit.fresh, *training_only(network, predictor), *getattr(trainer, "_outside", ())]
    unused = parts_of([name for name in file.weights if name not in fit.loaded], prefixes(own))
    lines = [
        f"{file.path} ({file.origin})",
        *file.told,
        f"{len(fit.loaded)} of {len(own)} tensors of the network that predicts are the file's"
        + (f"; {fit.channels}" if fit.channels else ""),
        *others,
        f"fresh: {', '.join(fresh) or 'nothing'}",
        f"in the file and not used: {', '.join(unused) or 'nothing'}",
    ]
    for line in lines:
        trainer.print_to_log_file(f"Start weights: {line}")
    if note := learned_note(trainer, file):
        trainer.print_to_log_file(note)


# The network's side.


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Return what a network's state dict holds, each tensor once, by its plain name."""
    kept = set(network.state_dict())
    named = [*network.named_parameters(), *network.named_buffers()]
    return {plain_name(name): tensor.data for name, tensor in named if name in kept}


def plain_shapes(trainer: Any) -> dict[str, Size]:
    """Return the shapes in the plan's network without inserts, which takes no memory."""
    architecture = trainer.configuration_manager.configuration["architecture"]
    arguments = dict(architecture["arch_kwargs"])
    for name in ("base", "inserts"):
        arguments.pop(name, None)
    with torch.device("meta"):
        network = get_network_from_plans(
            base_of(architecture),
            arguments,
            architecture["_kw_requires_import"],
            trainer.num_input_channels,
            trainer.label_manager.num_segmentation_heads,
            deep_supervision=trainer.enable_deep_supervision,
        )
    return {name: tensor.shape for name, tensor in tensors_of(network).items()}


def _stays(predictor: Any, file: StartFile) -> Iterable[str]:
    """Return the parts that the network does not take from this file, whatever their shapes."""
    return predictor.stays(file.weights) if hasattr(predictor, "stays") else ()


def _further_members(network: nn.Module, shared_encoder: bool) -> list[nn.Module]:
    """Return the further networks that learn, or the decoders on the predicting one's encoder."""
    groups = [m for m in network.modules() if isinstance(m, Members)]
    return [o for group in groups if group.shared_encoder == shared_encoder for o in group.others]


def _start_other(other: dict[str, Tensor], first: dict[str, Tensor], fit: Fit) -> str:
    """Give a further network the encoder, where it is of the same kind; return a line for the log.

    Args:
        other: its tensors.
        first: those of the network that predicts, as they start.
        fit: what that one took from the file.
    """
    encoders = [
        {name: tensor.shape for name, tensor in one.items() if name.startswith("encoder.")}
        for one in (other, first)
    ]
    if encoders[0] != encoders[1]:
        return "the second network is of another kind and starts fresh"
    for name in encoders[0]:
        if name in fit.loaded:
            other[name].copy_(first[name])
    return "the second network has the same encoder, and a fresh decoder so that the two differ"


def training_only(network: nn.Module, predictor: nn.Module) -> list[str]:
    """Return the parts of a network in training, but for networks, that do not predict."""
    networks, decoders = (_further_members(network, shared) for shared in (False, True))
    told = {id(tensor) for one in [predictor, *networks, *decoders] for tensor in _all_of(one)}
    named = [*network.named_parameters(), *network.named_buffers()]
    names = [name.removeprefix("inner.") for name, one in named if id(one) not in told]
    parts = list(dict.fromkeys(name.split(".")[0] for name in names))
    return ["further decoders", *parts] if decoders else parts


def _all_of(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


# Cases that the weights have seen.


def learned_note(trainer: Any, file: StartFile) -> str:
    """Return a warning where the weights were trained on cases that this fold validates on.

    A stock checkpoint does not list its cases: those of its fold are taken, as the file of folds
    has them today.
    """
    if file.dataset != trainer.plans_manager.dataset_name:
        return ""
    splits = read_splits(join(trainer.preprocessed_dataset_folder_base, SPLITS_FILE))

    def cases(fold: Any, part: str) -> set[str]:
        known = isinstance(fold, int) and fold < len(splits)
        return set(splits[fold][part]) if known else set()

    everything = {case for fold in splits for case in (*fold["train"], *fold["val"])}
    trained = everything if file.fold == "all" else cases(file.fold, "train")
    learned = sorted(cases(trainer.fold, "val") & (set(file.trained_on) or trained))
    if not learned:
        return ""
    return (
        f"WARNING: the start weights were trained on {len(learned)} of the cases that fold "
        f"{trainer.fold} validates on ({', '.join(learned[:SHOWN])}"
        f"{', ...' if len(learned) > SHOWN else ''}): their scores are those of training cases. "
        f"Start from fold {trainer.fold} of the other training."
    )
