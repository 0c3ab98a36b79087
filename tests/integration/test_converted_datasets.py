"""What the converters write is planned and preprocessed, labeled and unlabeled, by one command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nnunet_semisup import parallel
from nnunet_semisup.cli import plan_and_preprocess
from tests.helpers import nnunet_folders, nnunet_in_process
from tests.unit.dataset_conversion import trees, trees_generic
from tests.unit.dataset_conversion.forms import make

CONFIGURATION = "3d_fullres"
VARIANTS = {
    601: ("pancreas", "raw", (24, 32, 32)),
    602: ("brats2019", "regions", (24, 32, 32)),
    603: ("msd_lung", "imagesTs", (24, 32, 32)),
    604: ("acdc", "raw", (8, 32, 32)),
}
OTHERS = {605: "la", 606: "generic", 607: "lc"}
DATASETS = {number: dataset for number, (dataset, _, _) in VARIANTS.items()} | OTHERS


def convert_all(root: Path) -> None:
    """A tiny download of every data set, converted."""
    for number, (dataset, variant, shape) in VARIANTS.items():
        tree = make(dataset, variant, root / f"download_{dataset}", shape=shape)
        assert tree.convert(dataset_id=number) == 0
    assert trees.convert(trees.make_download(root / "download_la"), dataset_id=605) == 0
    folders = trees_generic.make_folders(root / "download_generic", ".nrrd")
    assert trees_generic.convert(folders.root, *trees_generic.WHAT, dataset_id=606) == 0
    for seed in range(5):
        folder = root / "download_lc" / f"case{seed}"
        trees_generic.write(trees_generic.scan(seed), folder / "ct.mha")
        trees_generic.write(trees_generic.mask(seed), folder / "mask.nii")
    options = ("--split", "seed:42", "--labeled", "2")
    lc = root / "download_lc"
    assert trees_generic.convert(lc, *options, command="lc", dataset_id=607) == 0


@dataclass(frozen=True)
class Prepared:
    """The folders of one data set after planning and preprocessing."""

    raw: Path
    preprocessed: Path

    def content(self) -> dict:
        return json.loads((self.raw / "dataset.json").read_text(encoding="utf-8"))

    def plans(self) -> dict:
        return json.loads((self.preprocessed / "nnUNetPlans.json").read_text(encoding="utf-8"))

    def cases(self, suffix: str = "") -> list[str]:
        """Preprocessed cases of a folder."""
        folder = self.preprocessed / f"nnUNetPlans_{CONFIGURATION}{suffix}"
        return sorted(path.stem for path in folder.glob("*.pkl"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Prepared]]:
    """Tiny downloads, converted and then prepared together, all in this process."""
    root = tmp_path_factory.mktemp("converted")
    with pytest.MonkeyPatch.context() as patch, nnunet_in_process():
        folders = nnunet_folders(root, patch)
        patch.setattr(parallel, "_in_processes", parallel._in_this_process)
        convert_all(root)
        numbers = [str(number) for number in DATASETS]
        with pytest.raises(SystemExit) as end:
            plan_and_preprocess.main(
                ["-d", *numbers, "-c", CONFIGURATION, "-npfp", "1", "-np", "1", "--no_pbar"]
            )
        assert end.value.code == 0
        found = {}
        for number, dataset in DATASETS.items():
            (raw,) = folders.raw.glob(f"Dataset{number}_*")
            found[dataset] = Prepared(raw, folders.preprocessed / raw.name)
        yield found


@pytest.mark.parametrize("dataset", DATASETS.values())
def test_labeled_and_unlabeled_cases_are_preprocessed(prepared, dataset):
    made = prepared[dataset]
    content = made.content()
    assert len(made.cases()) == content["numTraining"]
    assert len(made.cases("_unlabeled")) == content["semisup"]["num_unlabeled"] > 0
    assert set(content["semisup"]["labeled_order"]) <= set(made.cases())


@pytest.mark.parametrize("dataset", ["brats2019", "acdc", "la", "lc"])
def test_validation_cases_of_the_split_reach_the_trainer(prepared, dataset):
    made = prepared[dataset]
    (fold,) = json.loads((made.preprocessed / "splits_final.json").read_text(encoding="utf-8"))
    assert sorted(fold["train"] + fold["val"]) == made.cases()
    assert fold["train"] == made.content()["semisup"]["labeled_order"]


@pytest.mark.parametrize(
    ("dataset", "scheme"),
    [
        ("pancreas", ["CTNormalization"]),
        ("msd_lung", ["CTNormalization"]),
        ("brats2019", ["ZScoreNormalization"] * 4),
        ("acdc", ["ZScoreNormalization"]),
        ("la", ["ZScoreNormalization"]),
        ("generic", ["ZScoreNormalization"]),
        ("lc", ["CTNormalization"]),
    ],
)
def test_plan_knows_the_modality(prepared, dataset, scheme):
    plan = prepared[dataset].plans()["configurations"][CONFIGURATION]
    assert plan["normalization_schemes"] == scheme


def test_plan_has_the_true_voxel_size(prepared):
    plan = prepared["acdc"].plans()["configurations"][CONFIGURATION]
    np.testing.assert_allclose(sorted(plan["spacing"]), [1.25, 1.5, 10], rtol=1e-4)
