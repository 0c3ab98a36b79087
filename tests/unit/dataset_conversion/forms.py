"""Every form of every public data set, for tests that run over all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.unit.dataset_conversion.trees_acdc import make_acdc
from tests.unit.dataset_conversion.trees_brats2019 import make_brats2019
from tests.unit.dataset_conversion.trees_common import Tree
from tests.unit.dataset_conversion.trees_msd_lung import make_msd_lung
from tests.unit.dataset_conversion.trees_pancreas import make_pancreas

MAKERS: dict[str, Callable[..., Tree]] = {
    "pancreas": make_pancreas,
    "brats2019": make_brats2019,
    "msd_lung": make_msd_lung,
    "acdc": make_acdc,
}
FORMS = {
    "pancreas": ("raw", "nii", "mcnet-h5", "coranet-h5"),
    "brats2019": ("raw", "h5"),
    "msd_lung": ("raw", "h5"),
    "acdc": ("raw", "h5"),
}
OPTIONS = {
    ("brats2019", "regions"): ("raw", ("--channels", "all", "--target", "regions")),
    ("msd_lung", "imagesTs"): ("raw", ("--use-imagesTs",)),
}
"""Further variants: the form and the options that make them."""

VARIANTS = [(dataset, form) for dataset, forms in FORMS.items() for form in forms] + list(OPTIONS)


def make(dataset: str, variant: str, folder: Path, **keywords) -> Tree:
    """The tree of a form or of a further variant, with its options."""
    form, options = OPTIONS.get((dataset, variant), (variant, ()))
    tree = MAKERS[dataset](folder, form, **keywords)
    tree.options = options
    return tree
