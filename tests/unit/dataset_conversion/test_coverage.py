"""Unlabeled scans that lie outside of the labeled ones are told, and natural spread is not."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnunet_semisup.dataset_conversion.cases import Case, CaseFacts, DatasetForm, Subset
from nnunet_semisup.dataset_conversion.checking import raw_dataset
from nnunet_semisup.dataset_conversion.checking.coverage import _range_of_the_others, compare_scans
from nnunet_semisup.dataset_conversion.checking.coverage_picture import draw_coverage
from nnunet_semisup.dataset_conversion.checking.coverage_text import coverage_warnings
from nnunet_semisup.dataset_conversion.checking.intensities import (
    SHOWN_LEVELS,
    foreground_window,
    intensities_of,
)
from nnunet_semisup.dataset_conversion.checking.raw_splits import hidden_by_fold
from nnunet_semisup.dataset_conversion.volume import Geometry
from nnunet_semisup.preparation.raw import DatasetFolders
from tests.helpers import nnunet_folders
from tests.unit.dataset_conversion.test_verify_dataset import verify
from tests.unit.dataset_conversion.verify_faults import make_raw, noise, volume

LPS = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
SAGITTAL = (0, 0, 1.0, 1.0, 0, 0, 0, 1.0, 0)
"""x runs to where y does in LPS, y to where z does, z to where x does."""
VOXELS = 3000


def form(*names, dimensions=3, components=1):
    return DatasetForm(
        name="Made", source="", channel_names=dict(enumerate(names or ("MR",))), labels={},
        label_map={}, read_image=Path, read_label=Path, description="", reference="", licence="",
        dimensions=dimensions, components=components,
    )  # fmt: skip


def tissue(rng, shares=(0.4, 0.35, 0.25), means=(0.0, 3.0, 6.0)):
    """Air and two tissues, whose shares and contrasts vary by a tenth, in a scale of its own."""
    shares = np.array(shares) * rng.normal(1, 0.1, len(shares))
    means = np.array(means) * rng.normal(1, 0.1, len(means))
    kinds = rng.choice(len(means), VOXELS, p=shares / shares.sum())
    return (rng.normal(means[kinds], 0.6) + 1) * rng.uniform(50, 500)


def scan(name, *channels, spacing=(1.0, 1.0, 2.0), size=(200, 200, 60), direction=LPS):
    """A scan whose name says its subset: l1 is labeled, u1 is not."""
    subset = Subset.LABELED if name[0] == "l" else Subset.UNLABELED
    facts = CaseFacts(Case(name, subset, (), None))
    facts.geometry = Geometry(size, spacing, (0.0,) * len(size), direction)
    facts.intensities = [intensities_of(channel) for channel in channels]
    return facts


def natural(rng, name, **changes):
    """A scan as they vary: voxels and sizes by a tenth, intensities as those of tissue."""
    spacing = tuple(np.array([1.0, 1.0, 2.0]) * np.exp(rng.normal(0, 0.1, 3)))
    size = tuple(int(n) for n in np.array([200, 200, 60]) * np.exp(rng.normal(0, 0.1, 3)))
    return scan(name, tissue(rng), **{"spacing": spacing, "size": size, **changes})


def both(rng, labeled, unlabeled):
    return [
        natural(rng, f"{kind}{i}")
        for kind, number in (("l", labeled), ("u", unlabeled))
        for i in range(number)
    ]


def told(facts, described=None, hidden=()):
    coverage = compare_scans(facts, described or form(), hidden)
    assert coverage is not None
    return coverage_warnings(coverage)


@pytest.mark.parametrize("labeled", [1, 2, 4, 16])
def test_natural_spread_is_not_told(labeled):
    rng = np.random.default_rng(labeled)
    lines = [line for _ in range(4) for line in told(both(rng, labeled, 40))]
    assert lines == []


def test_voxel_size_is_told_with_value_range_and_what_to_do():
    rng = np.random.default_rng(0)
    odd = natural(rng, "odd", spacing=(1.0, 1.0, 6.0), size=(200, 200, 20))
    facts = [
        *[scan(f"l{i}", tissue(rng), spacing=(1.0, 1.0, 2.0 + i / 10)) for i in range(4)],
        *[scan(f"u{i}", tissue(rng), spacing=(1.3, 1.3, 2.6)) for i in range(3)],
        odd,
    ]
    assert told(facts) == [
        "1 of 4 unlabeled scans lies outside of the labeled ones in voxel size (labeled: z 2 to "
        "2.3 mm): odd (z 6 mm). Check their headers. Leave those out that are of another kind, or "
        "label some of them"
    ]


@pytest.mark.parametrize(("factor", "is_told"), [(1.9, False), (2.6, True), (1 / 1.9, False)])
def test_one_labeled_scan_says_nothing_about_spread(factor, is_told):
    """Beside four equal ones, 1.9 times the size is told: spread would have been seen."""
    rng = np.random.default_rng(0)
    other = scan("u0", tissue(rng), size=(200, int(200 * factor), 60))
    assert bool(told([scan("l0", tissue(rng)), other])) == is_told
    four = [scan(f"l{i}", tissue(rng)) for i in range(4)]
    assert told([*four, other])


def test_scans_that_are_turned_are_compared_along_the_same_sides():
    """That their axes point elsewhere has a line of its own, for all scans."""
    rng = np.random.default_rng(0)
    facts = both(rng, 4, 4)
    turned = natural(rng, "u9", spacing=(1.0, 2.0, 1.0), size=(200, 60, 200), direction=SAGITTAL)
    assert told([*facts, turned]) == []
    unturned = replace(turned, geometry=replace(turned.geometry, direction=LPS))
    (line,) = told([*facts, unturned])
    assert ": u9 (y 2 mm, z 1 mm). Check" in line


def test_another_sequence_is_told_in_the_numbers_that_a_network_sees():
    rng = np.random.default_rng(0)
    facts = both(rng, 4, 20)
    facts[7].intensities = [intensities_of(tissue(rng, (0.85, 0.1, 0.05)))]
    (line,) = told(facts)
    assert line.startswith(
        "1 of 20 unlabeled scans lies outside of the labeled ones in intensities"
    )
    assert re.search(
        r": u3 \(channel 0 \(MR\): \d+% of the voxels below -?[\d.]+ standard deviations from its "
        r"mean, labeled -?[\d.]+ to -?[\d.]+\)",
        line,
    )


@pytest.mark.parametrize(("name", "is_told"), [("MR", False), ("CT", True), ("nonorm", True)])
def test_the_scale_of_the_file_matters_where_nnunet_keeps_it(name, is_told):
    rng = np.random.default_rng(0)
    values = [rng.normal(40, 30, VOXELS) for _ in range(6)]
    facts = [scan(f"l{i}", v) for i, v in enumerate(values[:4])]
    facts += [scan("u0", values[4]), scan("u1", values[5] + 1024)]
    for found, v in zip(facts[:4], values, strict=False):
        found.window = foreground_window(v, v > 0)
    lines = told(facts, form(name))
    assert bool(lines) == is_told
    assert all("u1 (channel 0" in line and "u0" not in line for line in lines)


def test_what_lies_outside_of_the_window_of_ct_is_not_compared():
    """Air around the body, or its absence in scans that are cut, is the lower end of the window."""
    rng = np.random.default_rng(0)
    body = rng.normal(40, 30, VOXELS)
    facts = [scan(f"l{i}", np.where(np.arange(VOXELS) % 3, body, -1000)) for i in range(3)]
    facts.append(scan("u0", np.where(np.arange(VOXELS) % 3, body, -3024)))
    assert told(facts, form("CT"))
    for found in facts[:3]:
        found.window = (-60.0, 140.0)
    assert told(facts, form("CT")) == []


def test_zeros_around_a_brain_count_for_nothing_where_nnunet_masks_them():
    """It does where cropping leaves less than three quarters, as around skull-stripped brains."""
    rng = np.random.default_rng(0)

    def brain(filled):
        head = np.zeros((40, 40, 40))
        inside = head[10:30, 10:30, 10:30]
        inside[rng.random(inside.shape) < filled] = 1
        return np.where(head, rng.normal(100, 20, head.shape), 0)

    facts = [scan(f"l{i}", brain(0.9)) for i in range(3)]
    assert told([*facts, scan("u0", brain(0.4))]) == []
    whole = [scan(f"l{i}", brain(0.9)[10:30, 10:30, 10:30]) for i in range(3)]
    assert told([*whole, scan("u0", brain(0.4)[10:30, 10:30, 10:30])])


CHANNELS = {
    "MR": ((0.4, 0.35, 0.25), (0.0, 3.0, 6.0)),
    "PET": ((0.9, 0.08, 0.02), (0.0, 3.0, 9.0)),
    "ADC": ((0.3, 0.1, 0.6), (0.0, 3.0, 6.0)),
}


def channels(rng):
    return [tissue(rng, *kind) for kind in CHANNELS.values()]


@pytest.mark.parametrize("labeled", [1, 4])
def test_exchanged_channels_are_told_and_their_intensities_are_not(labeled):
    rng = np.random.default_rng(0)
    facts = [scan(f"l{i}", *channels(rng)) for i in range(labeled)]
    facts += [scan(f"u{i}", *channels(rng)) for i in range(10)]
    first, second, third = channels(rng)
    (line,) = told([*facts, scan("u99", second, third, first)], form(*CHANNELS))
    assert line.startswith(
        "the channels of 1 of 11 unlabeled scans look like other channels of the labeled ones "
        "(channel 0 like 1, 1 like 2, 2 like 0: u99). Look at them; if they are exchanged, rename"
    )


def test_channels_that_look_alike_are_never_called_exchanged():
    rng = np.random.default_rng(0)
    facts = [scan(f"{kind}{i}", tissue(rng), tissue(rng)) for kind in "lu" for i in range(20)]
    assert told(facts, form("T1", "T1 after contrast")) == []


def test_order_of_colours_is_told_by_their_brightness():
    """Colours that differ in brightness alone look alike, each by its own mean and deviation."""
    rng = np.random.default_rng(0)

    def photo(name, order=(0, 1, 2)):
        base = rng.normal(rng.uniform(0.9, 1.1), 0.25, VOXELS)
        colours = [base * level for level in (160, 90, 40)]
        return scan(
            name, *[colours[i] for i in order], spacing=(1.0, 1.0), size=(500, 500),
            direction=(1.0, 0, 0, 1.0),
        )  # fmt: skip

    facts = [photo(f"{kind}{i}") for kind in "lu" for i in range(4)]
    lines = told([*facts, photo("u9", (2, 1, 0))], form("R", "G", "B", dimensions=2, components=3))
    assert len(lines) == 1
    assert "(channel 0 like 2, 2 like 0: u9)" in lines[0]


def test_pictures_have_sizes_in_pixels_and_no_voxel_size():
    rng = np.random.default_rng(0)
    flat = {"spacing": (1.0, 1.0), "direction": (1.0, 0, 0, 1.0)}
    facts = [scan(f"l{i}", tissue(rng), size=(500, 400), **flat) for i in range(3)]
    facts.append(scan("u0", tissue(rng), size=(2000, 400), **flat))
    (line,) = told(facts, form(dimensions=2))
    assert "in size (labeled: x 500 pixels): u0 (x 2000 pixels). They" in line


def test_a_channel_that_a_scan_lacks_is_left_out():
    """That each of its voxels has one value has been told, or accepted."""
    rng = np.random.default_rng(0)
    nothing = np.zeros(VOXELS)
    facts = [scan(f"{kind}{i}", tissue(rng), tissue(rng)) for kind in "lu" for i in range(4)]
    facts += [scan("l9", tissue(rng), nothing), scan("u9", tissue(rng), nothing)]
    assert told(facts, form("T1", "T2")) == []
    assert told([scan(f"{kind}0", tissue(rng), nothing) for kind in "lu"], form("T1", "T2")) == []


def test_five_hundred_scans_outside_are_one_line_that_says_to_label_some():
    rng = np.random.default_rng(0)
    values = tissue(rng)
    facts = [scan("l0", values), scan("l1", values)]
    facts += [scan(f"u{i}", values, spacing=(1.0, 1.0, 5.0 + i / 1000)) for i in range(500)]
    facts = [replace(f, geometry=replace(f.geometry, size=(200, 200, 24))) for f in facts]
    lines = told(facts)
    assert [line for line in lines if "voxel size" in line] == lines[:1]
    assert len(lines) == 2
    assert "500 of 500 unlabeled scans lie" in lines[0]
    assert "(labeled: z 2 mm): u499 (z 5.5 mm), " in lines[0]
    assert lines[0].count(" (z ") == 10
    assert ", u401, u400 and 400 more. Check" in lines[0]
    assert lines[0].endswith("They are most of the unlabeled scans: label some of them")


def test_nothing_is_compared_without_labeled_or_unlabeled_scans():
    rng = np.random.default_rng(0)
    facts = both(rng, 2, 2)
    assert compare_scans(facts[:2], form()) is None
    assert compare_scans(facts[2:], form()) is None
    facts[2].faults.append("damaged")
    assert compare_scans(facts, form()).unlabeled == ["u1"]


def test_labeled_cases_that_a_fold_hides_count_as_unlabeled():
    facts = both(np.random.default_rng(0), 3, 0)
    coverage = compare_scans(facts, form(), {"l1"})
    assert (coverage.labeled, coverage.unlabeled) == (["l0", "l2"], ["l1"])


@pytest.mark.parametrize(
    ("folds", "hidden"),
    [
        ([{"train": ["l0"], "val": ["l1"], "unlabeled": ["l2"]}], {"l2"}),
        ([{"train": ["l0"], "val": ["l1"], "unlabeled": 7}], set()),
        ([{"train": ["l0"], "val": ["l1"], "unlabeled": ["l2"]}] * 2, set()),
        ([{"train": ["l0"], "val": ["l1"]}], set()),
        ({}, set()),
    ],
)
def test_only_a_single_fold_hides_labels(tmp_path, folds, hidden):
    """Of several folds each case is labeled in some; what is malformed is a fault elsewhere."""
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    assert hidden_by_fold(DatasetFolders("Made", tmp_path, tmp_path / "none")) == hidden


def test_range_of_the_others():
    rows = np.random.default_rng(0).integers(0, 4, (6, 5)).astype(float)
    low, high = _range_of_the_others(rows)
    for i in range(6):
        others = np.delete(rows, i, axis=0)
        assert (low[i] == others.min(0)).all()
        assert (high[i] == others.max(0)).all()


def test_quantiles_are_those_of_the_voxels_that_nnunet_crops_to():
    rng = np.random.default_rng(0)
    image = np.zeros((90, 100, 110), np.float32)
    image[10:80, 20:100, 5:100] = rng.gamma(2, 50, (70, 80, 95))
    found = intensities_of(image)
    box = image[10:80, 20:100, 5:100]
    assert found.kept == pytest.approx(box.size / image.size)
    assert found.box.quantiles[[0, -1]] == pytest.approx([box.min(), box.max()])
    shares = [(box <= quantile).mean() for quantile in found.box.quantiles[1:-1]]
    assert shares == pytest.approx(SHOWN_LEVELS, abs=0.005)


def shown_texts(figure):
    return [t.get_text() for t in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_picture_names_what_is_outside_and_has_every_scan():
    rng = np.random.default_rng(0)
    facts = both(rng, 4, 20)
    facts.append(natural(rng, "case_with_a_very_long_name", spacing=(1.0, 1.0, 9.0)))
    facts.append(natural(rng, "u_turned", direction=(-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)))
    coverage = compare_scans(facts, form())
    figure = draw_coverage(coverage, "Dataset501_Made")
    texts = shown_texts(figure)
    assert "Dataset501_Made: 4 labeled, 22 unlabeled scans" in texts
    assert texts.count("case_w…g_name") == 2
    assert any("Axes RAS: 0 labeled, 1 unlabeled: u_turned" in text for text in texts)
    (panel,) = [a for a in figure.axes if a.get_title(loc="left") == "voxel size, z (mm)"]
    assert sum(len(dots.get_offsets()) for dots in panel.collections) == 26
    (curves,) = [a for a in figure.axes if "intensities" in a.get_title(loc="left")]
    assert len(curves.lines) == 26


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_dataset, "_faults_by_nnunet", lambda *_: [])
    return make_raw(nnunet_folders(tmp_path, monkeypatch).raw)


def test_command_warns_and_draws_on_request(made, tmp_path, capsys):
    for channel in (0, 1):
        path = made / "imagesUn" / f"unl_001_000{channel}.nii.gz"
        volume(path, noise(90 + channel), spacing=(1.0, 1.0, 4.0))
    assert verify() == 0
    out = capsys.readouterr().out
    assert "in voxel size (labeled: z 1 mm): unl_001 (z 4 mm). Check" in out
    assert "note: --picture FILE.png draws labeled beside unlabeled scans" in out
    picture = tmp_path / "scans.png"
    assert verify("--picture", str(picture)) == 0
    assert f"written: {picture}" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("scans.jpg", "is no PNG"),
        ("nowhere/scans.png", "cannot be written"),
        ("raw/Dataset501_Blobs/imagesUn/x_0000.png", "where files are data"),
    ],
)
def test_places_that_are_none_for_a_picture_are_refused_first(
    made,
    tmp_path,
    capsys,
    place,
    message,
):
    (made / "imagesTr" / "lab_000_0000.nii.gz").write_bytes(b"damaged")
    assert verify("--picture", str(tmp_path / place)) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "damaged" not in captured.err
    assert not (tmp_path / place).exists()
