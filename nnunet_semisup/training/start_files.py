"""Files of weights that a training can start from: checkpoints of nnU-Net, of ours, of nnssl."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os.path import abspath, isfile
from typing import Any

from torch import Tensor

from nnunet_semisup.errors import UserError
from nnunet_semisup.safe_files import read_checkpoint_file
from nnunet_semisup.training import nnssl
from nnunet_semisup.training.checkpoint import KEY

WEIGHTS = "network_weights"
"""Key of the weights in checkpoints of nnU-Net and nnssl."""
FLAG = "-pretrained_weights"


@dataclass(frozen=True)
class StartFile:
    """Hold the weights of a file.

    Attributes:
        path: of the file.
        origin: what was trained, as the log names it.
        weights: by the names of the plan's network, each once; on the host.
        dataset: name of the data set that it was trained on; empty where it is not known.
        plans: name of the plans, likewise.
        configuration: of the plans, likewise.
        fold: number or ``"all"``; ``None`` where it is not known.
        trained_on: labeled cases, where the file has them.
        self_supervised: whether it is a checkpoint of nnssl.
        told: further lines for the log.
    """

    path: str
    origin: str
    weights: Mapping[str, Tensor]
    dataset: str = ""
    plans: str = ""
    configuration: str = ""
    fold: int | str | None = None
    trained_on: tuple[str, ...] = ()
    self_supervised: bool = False
    told: tuple[str, ...] = ()


def read_start_file(path: str) -> StartFile:
    """Read the weights of a checkpoint without running code that it might hold.

    Args:
        path: of the file.

    Raises:
        UserError: there is no such file, it is no checkpoint of nnU-Net or nnssl, or it has weights
            of a transformer.
    """
    content = _read(path)
    weights = content.get(WEIGHTS) if isinstance(content, dict) else None
    if not _is_state(weights):
        keys = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f"{FLAG} {path}: no checkpoint of nnU-Net or nnssl, which have their weights under "
            f"{WEIGHTS!r}; this file has {keys[:200]}. Give a checkpoint_final.pth or "
            f"checkpoint_best.pth. {_repack()}"
        )
    of = _of_nnssl if nnssl.ADAPTATION in content else _of_nnunet
    return of(path, content)


# Reading.


def _read(path: str) -> Any:
    try:
        return read_checkpoint_file(path)
    except UserError as error:
        advice = (
            f" Give a checkpoint_final.pth or checkpoint_best.pth of nnU-Net or nnssl. {_repack()}"
        )
        raise UserError(f"{FLAG} {error}.{advice if isfile(path) else ''}") from error


def _repack() -> str:
    """Return how weights of another make become a file that can be read."""
    return (
        "Weights of another make, of a network with the plan's names, can be given as a file "
        f"written by torch.save({{{WEIGHTS!r}: network.state_dict()}}, FILE)."
    )


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


# Names.


def plain_name(name: str) -> str:
    """Return the name that a tensor has in the plan's network without inserts.

    A stage that a part follows (:class:`~nnunet_semisup.networks.followed.Followed`) is the plan's
    stage.
    """
    return name.replace(".stage.", ".")


def own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights by their plain names, without the second names of the same tensors.

    nnU-Net's decoder has the encoder in it, and its blocks have their layers twice. Prefixes of
    torch's wrappers for several GPUs and for compiled networks are taken off.
    """
    result = {}
    for name, value in weights.items():
        name = name.removeprefix("module.").removeprefix("_orig_mod.")
        if not name.startswith("decoder.encoder.") and ".all_modules." not in name:
            result[plain_name(name)] = value
    return result


# nnU-Net's checkpoints, and ours.


def _of_nnunet(path: str, content: Mapping[str, Any]) -> StartFile:
    state, arguments = _mapping(content.get(KEY)), _mapping(content.get("init_args"))
    plans = _mapping(arguments.get("plans"))
    trainer = state.get("trainer") or content.get("trainer_name") or "an unnamed trainer"
    dataset, name = str(plans.get("dataset_name", "")), str(plans.get("plans_name", ""))
    configuration, fold = str(arguments.get("configuration", "")), arguments.get("fold")
    known = [str(trainer), dataset, name, configuration, "" if fold is None else f"fold {fold}"]
    return StartFile(
        abspath(path),
        ", ".join(fact for fact in known if fact),
        own_names(content[WEIGHTS]),
        dataset=dataset,
        plans=name,
        configuration=configuration,
        fold=fold,
        trained_on=tuple(map(str, state.get("trained_on", ()))),
    )


def _of_nnssl(path: str, content: Mapping[str, Any]) -> StartFile:
    plan, trainer = _mapping(content[nnssl.ADAPTATION]), content.get("trainer_name")
    try:
        nnssl.refuse_transformer(plan)
    except UserError as error:
        raise UserError(f"{FLAG} {path}: {error}") from error
    return StartFile(
        abspath(path),
        f"nnssl, {nnssl.architecture_of(plan)}" + (f", {trainer}" if trainer else ""),
        nnssl.renamed(own_names(content[WEIGHTS]), plan),
        self_supervised=True,
        told=tuple(nnssl.described(content)),
    )
