"""Cases that differ from the others in what nothing in a single file tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from nnunet_semisup.dataset_conversion.cases import CT, CaseFacts, DatasetForm
from nnunet_semisup.dataset_conversion.findings import counted
from nnunet_semisup.preparation.raw import named

_AIR_OR_LUNG = -200
"""Hounsfield units; below it lies what every CT shows that is not cut to an organ."""
_MOSTLY = 0.5
_USUALLY_AT_MOST = 0.2
"""Shares of foreground that make a case an outlier, and the median that makes the others usual."""


def unlike_the_others(facts: Sequence[CaseFacts], form: DatasetForm) -> list[str]:
    """Return warnings about cases whose intensities or whose label are of another kind.

    Args:
        facts: the cases.
        form: with the names of channels and labels.
    """
    offset = [
        text
        for number, name in form.channel_names.items()
        if name.lower() == CT
        if (text := _not_hounsfield(_minima(facts, number)))
    ]
    ignored = form.labels.get("ignore")
    exchanged = _exchanged(_foreground(facts, ignored if isinstance(ignored, int) else None))
    return [*offset, *filter(None, [exchanged])]


def _minima(facts: Sequence[CaseFacts], channel: int) -> dict[str, float]:
    """Return the lowest value of a channel by case; channels in one file are not told apart."""
    return {
        found.case.id: found.images[channel].minimum
        for found in facts
        if channel < len(found.images)
    }


def _not_hounsfield(minima: Mapping[str, float]) -> str | None:
    """Return a line about CT scans that begin at 0 beside others that go down to lung or air."""
    positive = [case for case, lowest in minima.items() if lowest >= 0]
    others = [lowest for lowest in minima.values() if lowest < _AIR_OR_LUNG]
    if not positive or not others:
        return None
    return (
        f"the CT of {counted(len(positive), 'case')} has no value below 0, while others go down to "
        f"{min(others):g}: {named(positive)}. Hounsfield units of air are about -1000, so these "
        "may be stored with an offset (often 1024) or scaled; nnU-Net takes one scale for all. "
        "Subtract it, or take the original files"
    )


def _foreground(facts: Sequence[CaseFacts], ignored: int | None) -> dict[str, float]:
    """Return the share of foreground in the labels, without the ignore label, by case."""
    shares = {}
    for found in facts:
        counts = {value: n for value, n in found.label_counts.items() if value != ignored}
        if total := sum(counts.values()):
            shares[found.case.id] = 1 - counts.get(0, 0) / total
    return shares


def _exchanged(shares: Mapping[str, float]) -> str | None:
    """Return a line about labels that are mostly foreground where it is usually little."""
    if not shares or (usual := median(shares.values())) > _USUALLY_AT_MOST:
        return None
    filled = [case for case, share in shares.items() if share > _MOSTLY]
    if not filled:
        return None
    return (
        f"the labels of {counted(len(filled), 'case')} are mostly foreground, where it is "
        f"{usual:.1%} otherwise (median): {named(filled)}. Look at them: object and background may "
        "be exchanged"
    )
