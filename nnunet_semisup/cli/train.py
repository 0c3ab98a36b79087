"""Train in one process, or in torchrun's on several machines (``nnUNetv2_semisup_train``)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from nnunet_semisup.cli._run import run_command
from nnunet_semisup.errors import UserError

PROGRAM = "nnUNetv2_semisup_train"

DESCRIPTION = """\
Train with the arguments of nnUNetv2_train. Alone, it is that command. Started by torchrun, it is
one of several processes, on one machine or many, that share each step and train one model.
"""

EXAMPLES = """\
examples:
  nnUNetv2_semisup_train 501 3d_fullres 0 -tr nnUNetTrainerPseudoLabel
  torchrun --nproc_per_node 4 -m nnunet_semisup.cli.train 501 3d_fullres 0
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command's arguments, which are those of ``nnUNetv2_train``."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("dataset_name_or_id", metavar="DATASET", help="name or ID")
    add("configuration", metavar="CONFIGURATION", help="2d, 3d_fullres, 3d_lowres ...")
    add("fold", metavar="FOLD", help="a number, or all")
    add("-tr", default="nnUNetTrainer", metavar="NAME", help="trainer [%(default)s]")
    add("-p", default="nnUNetPlans", metavar="NAME", help="plans [%(default)s]")
    add("-pretrained_weights", metavar="FILE", help="checkpoint whose weights to start from")
    add("-num_gpus", type=int, default=1, metavar="N", help="of this machine, without torchrun [1]")
    add("--npz", action="store_true", help="save probabilities of the validation")
    add("--c", action="store_true", help="continue")
    add("--val", action="store_true", help="only validate a finished training")
    add("--val_best", action="store_true", help="validate checkpoint_best.pth")
    add("--disable_checkpointing", action="store_true", help="write no checkpoints")
    add("-device", default="cuda", metavar="NAME", help="cuda, cpu or mps [%(default)s]")
    return parser


def is_one_of_several(variables: Mapping[str, str]) -> bool:
    """Tell whether torchrun started several processes, of which this is one."""
    return variables.get("WORLD_SIZE", "1") not in ("", "1")


def train(arguments: argparse.Namespace) -> None:
    """Check the arguments, and train as one of several processes.

    Raises:
        UserError: they do not fit each other, or the processes do not.
    """
    faults = []
    if arguments.num_gpus != 1:
        faults.append("-num_gpus: torchrun says how many processes there are; leave it out")
    if arguments.fold != "all" and not arguments.fold.isdecimal():
        faults.append(f"FOLD {arguments.fold}: give a number, or all")
    if arguments.c and arguments.val:
        faults.append("--c continues, --val only validates; give one of them")
    if arguments.c and arguments.pretrained_weights is not None:
        faults.append("-pretrained_weights are for the start; leave them out with --c")
    if arguments.val_best and arguments.disable_checkpointing:
        faults.append("--val_best needs the checkpoints that --disable_checkpointing leaves out")
    if faults:
        raise UserError("; ".join(faults))
    from nnunet_semisup.training.torchrun import Place
    from nnunet_semisup.training.torchrun import train as train_together

    train_together(arguments, Place.of(os.environ))


def train_alone(arguments: Sequence[str]) -> None:
    """Do what ``nnUNetv2_train`` does with these arguments."""
    from nnunetv2.run.run_training import run_training_entry

    sys.argv = [PROGRAM, *arguments]
    run_training_entry()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``nnUNetv2_semisup_train``; ``arguments`` default to the command line."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parsed = build_parser().parse_args(given)
    together = is_one_of_several(os.environ)
    run_command(lambda: train(parsed) if together else train_alone(given))


if __name__ == "__main__":
    main()
