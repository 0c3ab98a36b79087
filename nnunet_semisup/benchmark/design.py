"""Rows, cases and files of a benchmark."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.errors import UserError
from nnunet_semisup.registry import METHODS

FILE = "benchmark.json"
FORMAT_VERSION = 1
SUPERVISED = "nnUNetTrainerSupervised"
STOCK_PLANS = "nnUNetPlans"


@dataclass(frozen=True)
class Row:
    """Describe a line of the comparison.

    Attributes:
        trainer: name of the class.
        settings: hyper-parameters, as ``nnUNet_semisup_set`` takes them; empty: the defaults.
        inserts: parts of the network (``nnUNetv2_semisup_plans``), in their order.
        steps_factor: times the steps of the other rows, for the row at equal operations.
    """

    trainer: str
    settings: str = ""
    inserts: tuple[str, ...] = ()
    steps_factor: float = 1.0

    @property
    def title(self) -> str:
        """Name of the line, unique in a benchmark."""
        parts = [self.trainer, *([self.settings] if self.settings else [])]
        title = ":".join(parts) + "".join(f"+{insert}" for insert in self.inserts)
        return title if self.steps_factor == 1 else f"{title} x{self.steps_factor:g} steps"

    @property
    def key(self) -> str:
        """Name of the line's folder."""
        return re.sub(r"[^\w.=-]+", "_", self.title.replace("+", "_with_"))

    @property
    def plans(self) -> str:
        """Name of the plans that it is trained with."""
        return "-".join([STOCK_PLANS, *(re.sub(r"[^\w]+", "-", i) for i in self.inserts)])

    @property
    def is_baseline(self) -> bool:
        """Tell whether the others are held against it: labels alone, at equal steps."""
        return self == Row(SUPERVISED)


def read_row(text: str) -> Row:
    """Read ``TRAINER``, ``TRAINER:NAME=VALUE,...``, each with ``+INSERT`` behind it as often.

    A trainer's name may lack ``nnUNetTrainer``.

    Raises:
        UserError: no trainer of this package.
    """
    named, *inserts = text.split("+")
    name, _, settings = named.partition(":")
    known = [method.trainer for method in METHODS]
    found = [trainer for trainer in known if trainer in (name, f"nnUNetTrainer{name}")]
    if not found:
        raise UserError(f"{name} is no trainer of this package. Possible: {', '.join(known)}.")
    return Row(found[0], settings, tuple(inserts))


@dataclass(frozen=True)
class Design:
    """Hold everything that decides the runs of a benchmark.

    Attributes:
        dataset: name in ``nnUNet_raw``, from where images and labels are linked.
        raw: that folder.
        configuration: of nnU-Net.
        rows: lines of the comparison; the first one is the labeled cases alone.
        budgets: numbers of labeled cases.
        seeds: of the trainings.
        steps: optimizer steps of a training.
        steps_per_epoch: of them; the validation patches of an epoch are not counted.
        pool: labeled cases in the order in which budgets take them: the first N of them.
        unlabeled: cases that are unlabeled in every budget, beside the rest of the pool.
        evaluation: cases on which the final weights are measured; never trained on.
        left_out: cases without a role.
        order: where the order of the pool comes from, in words.
        spacing: in mm in place of the plan's, empty: the plan's.
        features: a stage in place of the plan's, empty: the plan's.
        planner: class of nnU-Net.
        gpu_memory: in GB that the planner plans for, 0: its own.
        bfloat16: mixed precision on the CPU.
    """

    dataset: str
    raw: str
    configuration: str
    rows: tuple[Row, ...]
    budgets: tuple[int, ...]
    seeds: tuple[int, ...]
    steps: int
    steps_per_epoch: int
    pool: tuple[str, ...]
    unlabeled: tuple[str, ...]
    evaluation: tuple[str, ...]
    left_out: tuple[str, ...]
    order: str
    spacing: tuple[float, ...] = ()
    features: tuple[int, ...] = ()
    planner: str = "ExperimentPlanner"
    gpu_memory: float = 0.0
    bfloat16: bool = False

    @property
    def dataset_id(self) -> int:
        """Number of the data set."""
        return int(self.dataset[7:10])

    def runs(self) -> list[Run]:
        """Return every training, the ones that tell most first: budget, then seed, then row."""
        return [
            Run(row, budget, seed)
            for budget in self.budgets
            for seed in self.seeds
            for row in self.rows
        ]

    def steps_of(self, row: Row) -> int:
        """Return a row's number of steps, whole epochs."""
        epochs = max(1, round(self.steps * row.steps_factor / self.steps_per_epoch))
        return epochs * self.steps_per_epoch

    def labeled(self, budget: int) -> tuple[str, ...]:
        """Return the labeled cases of a budget."""
        return self.pool[:budget]

    def to_json(self) -> dict[str, Any]:
        """Return the content of :data:`FILE`."""
        return {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Run:
    """Name one training."""

    row: Row
    budget: int
    seed: int

    @property
    def title(self) -> str:
        """Name for people."""
        return f"{self.row.title}, {self.budget} labels, seed {self.seed}"

    @property
    def key(self) -> str:
        """Name for files."""
        return f"labels{self.budget}/{self.row.key}/seed{self.seed}"


@dataclass(frozen=True)
class Layout:
    """Name the files of a benchmark below its folder."""

    folder: Path

    @property
    def design(self) -> Path:
        """File with what is compared."""
        return self.folder / FILE

    def budget(self, budget: int) -> Path:
        """Folder of a budget; ``raw`` and ``preprocessed`` in it are nnU-Net's."""
        return self.folder / f"labels{budget}"

    def preprocessed(self, design: Design, budget: int) -> Path:
        """Folder of the data set in a budget's ``nnUNet_preprocessed``."""
        return self.budget(budget) / "preprocessed" / design.dataset

    def run(self, run: Run) -> Path:
        """Folder of a run: ``results`` (nnU-Net's), ``log.txt``, ``run.json``, ``evaluation``."""
        return self.folder / run.key

    def record(self, run: Run) -> Path:
        """File of what is known of a run."""
        return self.run(run) / "run.json"

    def evaluation(self, run: Run) -> Path:
        """Metrics of a finished run's evaluation cases, as ``nnUNetv2_semisup_evaluate`` writes."""
        return self.run(run) / "evaluation.json"

    def fold(self, design: Design, run: Run) -> Path:
        """Folder of the fold that nnU-Net trains."""
        name = f"{run.row.trainer}__{run.row.plans}__{design.configuration}"
        return self.run(run) / "results" / design.dataset / name / "fold_0"


def read_design(layout: Layout) -> Design:
    """Read what a benchmark compares.

    Raises:
        UserError: there is none, or it is of another version.
    """
    try:
        content: Mapping[str, Any] = json.loads(layout.design.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{layout.folder} holds no benchmark. Begin with nnUNetv2_semisup_benchmark plan."
        ) from None
    values = dict(content)
    if values.pop("format_version", None) != FORMAT_VERSION:
        raise UserError(f"{layout.design} was written by another version of this package.")
    rows = [{**row, "inserts": tuple(row["inserts"])} for row in values.pop("rows")]
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Design(rows=tuple(Row(**row) for row in rows), **values)


def join_design(layout: Layout, design: Design) -> Design:
    """Return what a benchmark compared before, if anything, and what ``design`` adds to it.

    Raises:
        UserError: the folder has a benchmark that differs in more than rows, budgets and seeds.
    """
    if not layout.design.exists():
        return design
    before = read_design(layout)
    open_to = ("rows", "budgets", "seeds")
    kept: dict[str, Any] = {name: getattr(before, name) for name in open_to}
    if dataclasses.replace(design, **kept) != before:
        differing = _differences(before, design, open_to)
        raise UserError(
            f"{layout.folder} holds another benchmark: {differing}. Rows, budgets and "
            "seeds can be added to it; for other changes name another folder."
        )
    joined: dict[str, Any] = {name: _joined(kept[name], getattr(design, name)) for name in open_to}
    return dataclasses.replace(design, **joined)


def write_design(layout: Layout, design: Design) -> None:
    """Write what a benchmark compares, or more of it than before.

    Raises:
        UserError: see :func:`join_design`.
    """
    design = join_design(layout, design)
    layout.folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(layout.design) as temporary:
        temporary.write_text(json.dumps(design.to_json(), indent=1), encoding="utf-8")


def _joined(before: Sequence[Any], now: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys([*before, *now]))


def _differences(before: Design, now: Design, open_to: Sequence[str]) -> str:
    names = [field.name for field in dataclasses.fields(Design) if field.name not in open_to]
    return ", ".join(
        f"{name} was {getattr(before, name)!r} and is {getattr(now, name)!r}"
        for name in names
        if getattr(before, name) != getattr(now, name)
    )
