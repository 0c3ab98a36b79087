"""The labels of a round, predicted in parts by commands on several machines."""

from __future__ import annotations

from nnunet_semisup.errors import UserError
from nnunet_semisup.rounds.commands import call_attached, read_record
from nnunet_semisup.rounds.course import (
    Model,
    first_model,
    label_command,
    model_of,
    number_of_splits,
)
from nnunet_semisup.rounds.design import Design, Layout, read_design
from nnunet_semisup.rounds.results import read_rounds


def to_be_labeled(layout: Layout, design: Design) -> tuple[int, Model] | None:
    """Return the number of the round whose labels come next, and the model that makes them.

    ``None`` where the rounds are at their end.

    Raises:
        UserError: an earlier round is not made yet.
    """
    model = first_model(design)
    for one in read_rounds(layout, design)[1:]:
        round_ = layout.round(design, one.number)
        if not read_record(round_.folder / "steps", "label").finished:
            return one.number, model
        if one.state == "converged":
            return None
        if one.state != "finished":
            raise UserError(
                f"{round_.folder.name} is {one.state}, and its model labels the next round. First "
                f"run: nnUNetv2_semisup_rounds run {layout.folder} --one-round"
            )
        model = model_of(design, round_, number_of_splits(round_))
    return None


def label_part(layout: Layout, part: int, parts: int) -> int:
    """Label a part of the next round's scans, and return the exit code of the command.

    What is made is kept by ``run``, which makes what is missing and everything else.

    Args:
        layout: of the rounds.
        part: its number, from 0.
        parts: how many there are.

    Raises:
        UserError: an earlier round is not made yet.
    """
    design = read_design(layout)
    found = to_be_labeled(layout, design)
    if found is None:
        print("The rounds are at their end: nothing is to be labeled")
        return 0
    words, variables = label_command(layout, design, *found)
    return call_attached(
        [*words, "-num_parts", str(parts), "-part_id", str(part)],
        variables,
    )
