"""What holds for every form of every data set."""

from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import numpy as np
import pytest
from nnunetv2.experiment_planning import verify_dataset_integrity as verifier

from nnunet_semisup import atomic
from nnunet_semisup.cli.convert import build_parser
from nnunet_semisup.dataset_conversion.offers import OFFERS
from tests.unit.dataset_conversion.forms import VARIANTS, make
from tests.unit.dataset_conversion.trees import snapshot
from tests.unit.dataset_conversion.trees_brats2019 import CASES
from tests.unit.dataset_conversion.trees_common import dataset_json_of, names, read, report_of

pytestmark = pytest.mark.usefixtures("no_search")


class Killed(BaseException):
    """Ends the command as no handler of it expects."""


def folder_of(roots):
    (folder,) = roots["raw"].iterdir()
    return folder


@pytest.mark.parametrize(("dataset", "variant"), VARIANTS)
def test_result_is_a_data_set_of_nnunet(roots, tmp_path, monkeypatch, dataset, variant):
    tree = make(dataset, variant, tmp_path / "download")
    assert tree.convert() == 0
    made = folder_of(roots)
    threads = SimpleNamespace(get_context=lambda _: SimpleNamespace(Pool=ThreadPool))
    monkeypatch.setattr(verifier, "multiprocessing", threads)
    verifier.verify_dataset_integrity(str(made), 1)
    content, report = dataset_json_of(made), report_of(made)
    channels = len(content["channel_names"])
    for folder, count in (("imagesTr", content["numTraining"]), ("imagesTs", None)):
        cases = {name[: -len("_0000.nii.gz")] for name in names(made / folder)}
        assert count is None or len(cases) == count
        assert len(names(made / folder)) == channels * len(cases)
    assert len(names(made / "imagesUn")) == channels * content["semisup"]["num_unlabeled"]
    assert not (made / "labelsUn").exists()
    assert content["semisup"]["labeled_order"] == tree.lists["labeled"]
    assert content["reference"]
    assert content["licence"]
    for case in report["cases"].values():
        for image in case["images"]:
            assert read(made / image["file"]).sum(dtype=np.float64) == pytest.approx(image["sum"])


@pytest.mark.parametrize(("dataset", "variant"), VARIANTS)
def test_dry_run_writes_nothing(roots, tmp_path, dataset, variant):
    tree = make(dataset, variant, tmp_path / "download")
    before = snapshot(tmp_path)
    assert tree.convert("--dry-run") == 0
    assert snapshot(tmp_path) == before
    assert names(roots["raw"]) == []


@pytest.mark.parametrize(("dataset", "variant"), [("pancreas", "raw"), ("brats2019", "regions")])
def test_killed_and_restarted_gives_the_same_bytes(roots, tmp_path, monkeypatch, dataset, variant):
    tree = make(dataset, variant, tmp_path / "download")
    publish = atomic.publish
    calls = [0]
    last = float("inf")

    def publish_until_last(temporary, path):
        if calls[0] == last:
            raise Killed
        calls[0] += 1
        publish(temporary, path)

    monkeypatch.setattr(atomic, "publish", publish_until_last)
    assert tree.convert() == 0
    number, complete = calls[0], snapshot(folder_of(roots))
    for last in (0, 3, number // 2, number - 1):
        folder_of(roots).rename(tmp_path / f"done{last}")
        calls[0] = 0
        with pytest.raises(Killed):
            tree.convert()
        assert not any(path.name.startswith("Dataset") for path in roots["raw"].iterdir())
        last = float("inf")
        assert tree.convert() == 0
        assert snapshot(folder_of(roots)) == complete


def test_random_split_of_the_whole_collection(roots, tmp_path):
    tree = make("brats2019", "raw", tmp_path / "download")
    assert tree.convert("--split", "seed:36", "--labeled", "0.2", "--allow-partial") == 0
    report = report_of(folder_of(roots))
    assert report["settings"]["split"]["name"] == "seed:36 over brats2019.json"
    assert len(report["settings"]["labeled"]) == 50
    subsets = {case: facts["subset"] for case, facts in report["cases"].items()}
    expected = ["test", "unlabeled", "unlabeled", "unlabeled", "labeled", "validation"]
    assert [subsets[case] for case in CASES] == expected


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("seed:x", "--split seed:x is not possible; give a number, as in seed:42"),
        ("coranett", "give literature, coranet, mcnet, mcnet_dedup, seed:N"),
        ("none.json", "cannot be read as json"),
    ],
)
def test_unknown_split(roots, tmp_path, capsys, split, message):
    tree = make("pancreas", "nii", tmp_path / "download")
    assert tree.convert("--split", split) == 2
    assert message in capsys.readouterr().err


def test_every_data_set_has_a_command_with_help(capsys):
    assert {"la", "pancreas", "brats2019", "msd_lung", "acdc"} <= set(OFFERS)
    for dataset in OFFERS:
        with pytest.raises(SystemExit) as end:
            build_parser().parse_args([dataset, "--help"])
        assert end.value.code == 0
        text = capsys.readouterr().out
        assert "--extra-unlabeled" in text
        assert "--dry-run" in text
