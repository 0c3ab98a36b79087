"""Choice of the predicted scans that a round trains on, with the reason for each.

The rule is that of FLARE 2022's winner (github.com/Ziyan-Huang/FLARE22, select.ipynb): rank scans
by how much their labels changed, on average over the last two changes, and drop the worst few
percent. In the first round, where nothing has changed yet, the disagreement of folds or mirrored
images stands in its place, as with another team of that challenge. Before that, what is unlike
every labeled case goes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from nnunet_semisup.errors import UserError
from nnunet_semisup.rounds.design import Design
from nnunet_semisup.scoring.cases import CaseScores


@dataclass(frozen=True)
class Decision:
    """Hold what becomes of a scan in a round.

    Attributes:
        case: its name.
        kept: whether it is trained on.
        score: by which it was ranked; ``None`` where it has none.
        reason: in words.
    """

    case: str
    kept: bool
    score: float | None
    reason: str


@dataclass(frozen=True)
class Choice:
    """Hold the decisions of a round.

    Attributes:
        measure: what the scores are, in words.
        decisions: one a scan, the worst first.
        changed: mean part of the labels that changed since the round before; ``None`` in the first.
        converged: whether that is so little that no further round is made.
    """

    measure: str
    decisions: tuple[Decision, ...]
    changed: float | None
    converged: bool

    @property
    def kept(self) -> list[str]:
        """The scans to train on."""
        return sorted(one.case for one in self.decisions if one.kept)

    def to_json(self) -> dict[str, object]:
        """Return a plain dictionary; :func:`read_choice` reads it."""
        return asdict(self)


def read_choice(path: Path) -> Choice:
    """Read what :meth:`Choice.to_json` gave."""
    content = json.loads(path.read_text(encoding="utf-8"))
    decisions = tuple(Decision(**one) for one in content.pop("decisions"))
    return Choice(decisions=decisions, **content)


def choose(
    scores: Sequence[CaseScores], earlier: Mapping[str, float | None], design: Design
) -> Choice:
    """Decide which scans are kept.

    Args:
        scores: of all unlabeled scans in this round.
        earlier: what changed in the round before, by scan; empty in the first two rounds.
        design: with the limits.

    Raises:
        UserError: not one scan is left.
    """
    measure, values = _values(scores, earlier)
    faults = {one.case: _implausible(one, design) for one in scores}
    fitting = [one.case for one in scores if not faults[one.case]]
    ranked = sorted(fitting, key=lambda case: (-values[case], case))
    worst = set(ranked[: math.ceil(design.drop * len(ranked))]) if design.drop else set()
    place = {case: number for number, case in enumerate(ranked, 1)}
    decisions = []
    for one in sorted(scores, key=lambda one: (-values[one.case], one.case)):
        value = values[one.case]
        reason = faults[one.case] or f"{measure}: place {place[one.case]} of {len(ranked)}"
        kept = not faults[one.case] and one.case not in worst
        score = value if math.isfinite(value) else None
        decisions.append(Decision(one.case, kept, score, reason))
    changes = [one.rounds for one in scores if one.rounds is not None]
    changed = fmean(changes) if changes else None
    if not any(one.kept for one in decisions):
        raise UserError(
            "not one predicted scan is kept, so there is nothing to train on: "
            f"{decisions[0].case}: {decisions[0].reason}. Train the first model longer, or plan "
            "with --size-limit 0 and a smaller --drop."
        )
    converged = changed is not None and changed < design.converged
    return Choice(measure, tuple(decisions), changed, converged)


def _values(
    scores: Sequence[CaseScores], earlier: Mapping[str, float | None]
) -> tuple[str, dict[str, float]]:
    """Return what scans are ranked by, and the values; infinite where one is not defined."""
    if any(one.rounds is not None for one in scores):
        return "changed since the round before", {
            one.case: _mean([one.rounds, earlier.get(one.case)]) for one in scores
        }
    if any(one.disagreement is not None for one in scores):
        return "disagreement of the votes", {one.case: _mean([one.disagreement]) for one in scores}
    return "entropy", {one.case: one.entropy for one in scores}


def _mean(values: Sequence[float | None]) -> float:
    defined = [value for value in values if value is not None]
    return fmean(defined) if defined else math.inf


def _implausible(one: CaseScores, design: Design) -> str:
    """Return why a scan is unlike the labeled cases; empty where it is not, or within limits."""
    if not design.size_limit:
        return ""
    outside = one.factor > design.size_limit or one.fragments > design.fragments_limit
    return "; ".join(one.reasons) if outside or one.missing else ""
