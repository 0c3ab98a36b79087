"""The report is made from what is there, says first what it showed, and holds all it shows."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy.stats import wilcoxon

from nnunet_semisup.benchmark.collect import collect
from nnunet_semisup.benchmark.design import Row
from nnunet_semisup.benchmark.headline import explanation, headline, learns_from_unlabeled
from nnunet_semisup.benchmark.report import write_report
from nnunet_semisup.benchmark.statistics import compare_rows, least_p
from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.compare import MEAN_OF_CLASSES
from tests.unit.benchmark.fake import BASELINE, BETTER, EVALUATION, LONGER, ROWS, WORSE, Fake

TWO_CLASSES = {"background": 0, "organ": 1, "lesion": 2}
LOADING = ("src", "href", "srcset", "poster", "data", "action", "xlink:href", "background")
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
WIDTHS = (390, 1280)
MEASURE = """<script>onload = () => { document.title =
[...document.querySelectorAll("iframe")].map(frame => { const inner = frame.contentWindow; return [
inner.innerWidth, inner.document.documentElement.scrollWidth,
inner.performance.getEntriesByType("resource").length].join(" ") }).join(";") }</script>"""
"""Leaves width, width of the content, and number of requests of each frame in the title."""


class Page(HTMLParser):
    """Collect what a page would load, its tags, and its text."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.tags, self.texts = re.findall(r"url\(\s*[\"']?([^)\"']*)", text), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in LOADING]

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Several seeds and classes, all runs finished, and a published data set."""
    folder = tmp_path_factory.mktemp("whole")
    fake = Fake(folder, TWO_CLASSES, rows=ROWS[:3], seeds=(0, 1)).finish_all()
    (folder / "leaks.json").write_text('["No case has two roles."]')
    write_report(folder, published="la")
    return fake


def read(fake, name="index.html"):
    return (fake.layout.folder / "report" / name).read_text(encoding="utf-8")


def test_page_begins_with_the_result_and_ends_with_how_it_was_done(whole):
    text = read(whole)
    in_order = (
        "Unlabeled cases helped in 1 of 2 rows beyond chance: with 6 unlabeled cases beside 2 "
        "labeled cases, MeanTeacher (the best of 2 rows) reaches a mean Dice of",
        "2 labeled, 6 unlabeled cases</h2>",
        "All cases</h2>",
        "Published numbers</h2>",
        "Cost</h2>",
        "Learning curves</h2>",
        "Cases</h2>",
        "Surfaces of the reference",
        "How it was done</h2>",
        "No case has two roles.",
        "Left out: copy_0.",
        "nnUNetv2_train 501 3d_fullres 0 -tr nnUNetTrainerMeanTeacher",
    )
    assert sorted(in_order, key=text.index) == list(in_order)
    assert 'http-equiv="refresh"' not in text
    assert "runs have finished" not in text


def test_page_holds_everything_that_it_shows(whole):
    page = Page(read(whole))
    assert {"img", "svg", "table"} <= set(page.tags)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    outside = [load for load in page.loads if not load.startswith(("data:image/png;base64,", "#"))]
    assert outside == []
    assert "@import" not in read(whole)


def test_browser_finds_no_overflow_and_requests_nothing(whole, tmp_path):
    """In frames, since Chromium 156 lays out no window below 500 pixels.

    Without the policy that would forbid requests: none is made that it had to forbid.
    """
    if not BROWSER:
        pytest.skip("no Chromium")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", read(whole))
    frames = [f'<iframe width="{w}" srcdoc="{html.escape(text)}"></iframe>' for w in WIDTHS]
    page = f'<!doctype html><meta charset="utf-8">{MEASURE}{"".join(frames)}'
    (tmp_path / "frames.html").write_text(page, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [BROWSER, *options, "--dump-dom", (tmp_path / "frames.html").as_uri()]
    shown = subprocess.run(
        command, capture_output=True, encoding="utf-8", timeout=120, check=True
    ).stdout
    title = re.search(r"<title>([^<]*)</title>", shown)
    measured = [tuple(map(int, frame.split())) for frame in title[1].split(";")]
    assert [width for width, _, _ in measured] == list(WIDTHS)
    for width, content, requests in measured:
        assert content <= width
        assert requests == 0


def test_several_classes_have_their_tables_and_columns(whole):
    text = read(whole)
    assert f"{MEAN_OF_CLASSES}:" in text
    assert "<summary>lesion</summary>" in text
    content = json.loads(read(whole, "report.json"))
    found = {(line["labels"], line["class"], line["row"]) for line in content["comparison"]}
    assert len(found) == 3 * 3
    assert content["published"]["key"] == "la"


def test_csv_has_a_line_a_run_case_and_class(whole):
    lines = list(csv.DictReader(read(whole, "report.csv").splitlines()))
    assert len(lines) == 2 * 3 * len(EVALUATION) * 2
    first = lines[0]
    assert (first["labels"], first["row"], first["seed"]) == ("2", "nnUNetTrainerSupervised", "0")
    assert (first["case"], first["class"], first["unit"]) == ("test_0", "organ", "mm")
    result = json.loads(whole.layout.evaluation(whole.run(BASELINE)).read_text())
    expected = result["cases"]["test_0"]["classes"]["organ"]
    assert float(first["HD95"]) == expected["HD95"]
    undefined = [line for line in lines if line["status"] == "both_empty"]
    assert {line["case"] for line in undefined} == {EVALUATION[-1]}
    assert {line["Dice"] for line in undefined} == {""}


def test_markdown_has_the_tables_and_no_pictures(whole):
    text = read(whole, "report.md")
    assert text.startswith(f"# Benchmark: {whole.design.dataset}\n\n**Unlabeled cases helped")
    assert re.search(r"\| MeanTeacher +\|", text)
    assert "\n> Published by others." in text
    assert "## Cost" in text
    assert "Learning curves" not in text
    assert not re.search(r"^#[^\n]*\n+(#|\Z)", text, flags=re.MULTILINE), "an empty section"
    assert "<" not in re.sub(r"<0\.001", "", text)


def test_budgets_have_a_sentence_and_a_table_each(tmp_path):
    """Published numbers stand beside the budget that they are of."""
    fake = Fake(tmp_path, flat=True, rows=(BASELINE, BETTER), budgets=(2, 4)).finish_all()
    write_report(tmp_path, published="la")
    text = read(fake, "report.md")
    in_order = (
        "with 6 unlabeled cases beside 2 labeled cases",
        "with 4 unlabeled cases beside 4 labeled cases",
        "## 2 labeled, 6 unlabeled cases",
        "## 4 labeled, 4 unlabeled cases",
        "## Published numbers",
        "### 4 labeled cases",
        "published: ARCO, NeurIPS 2023 [1]",
    )
    assert sorted(in_order, key=text.index) == list(in_order)


def test_report_without_a_finished_run(tmp_path):
    fake = Fake(tmp_path)
    write_report(tmp_path, published="acdc")
    text = read(fake)
    assert "0 of 4 runs have finished; 4 waiting." in text
    assert "Nothing can be said yet" in text
    assert 'http-equiv="refresh"' in text
    assert "Published at other budgets" in text
    assert json.loads(read(fake, "report.json"))["comparison"] == []
    assert len(read(fake, "report.csv").splitlines()) == 1


def test_unfinished_runs_are_told_with_their_fault(tmp_path):
    fake = Fake(tmp_path, flat=True)
    for row in (BASELINE, BETTER, LONGER):
        fake.finish(fake.run(row))
    fake.fail(fake.run(WORSE), "diverged <in> epoch 3")
    write_report(tmp_path)
    text = read(fake)
    assert "3 of 4 runs have finished; 1 failed." in text
    assert "diverged &lt;in&gt; epoch 3" in text
    assert 'http-equiv="refresh"' not in text  # nothing goes on
    assert "2 labeled cases, MeanTeacher reaches" in text
    assert "The labeled cases alone, trained 2 times as long: +0.0 points." in text
    assert "One seed a row" in text
    assert "HD95 (pixel)" in text
    assert "Surfaces" not in text
    assert "leaks.json is missing" in text


@pytest.mark.parametrize(
    ("shifts", "beginning"),
    [
        ([3] * 9, "No sure gain from unlabeled cases: with 6 unlabeled"),
        ([2, 1, 3, 0, 2, 2, 1, 3, 0], "No sure gain from unlabeled cases: with 6 unlabeled"),
        ([0] * 9, "Unlabeled cases helped in 1 of 1 rows beyond chance: with 6 unlabeled"),
    ],
)
def test_result_is_said_whichever_way_it_goes(tmp_path, shifts, beginning):
    fake = Fake(tmp_path, flat=True, rows=(BASELINE, BETTER))
    fake.finish(fake.run(BASELINE))
    fake.finish(fake.run(BETTER), shifts)
    benchmark = collect(tmp_path)
    lines = compare_rows(benchmark, 2)["organ"]
    assert headline(benchmark, 2, lines).startswith(beginning)


@pytest.mark.parametrize(("cases", "told"), [(1, True), (5, True), (6, False)])
def test_too_few_cases_are_not_called_a_result(whole, cases, told):
    benchmark = collect(whole.layout.folder)
    lines = [
        replace(line, differences={k: replace(d, count=cases) for k, d in line.differences.items()})
        for line in compare_rows(benchmark, 2)["organ"]
    ]
    start = "Too few evaluation cases to tell chance from gain: with 6"
    assert headline(benchmark, 2, lines).startswith(start) is told
    sentence = f"With {cases} evaluation cases no difference can be told from chance"
    assert any(said.startswith(sentence) for said in explanation(lines)) is told


@pytest.mark.parametrize("cases", range(1, 9))
def test_the_least_p_is_that_of_the_test(cases):
    assert least_p(cases) == pytest.approx(wilcoxon(np.arange(1, cases + 1), method="exact").pvalue)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (BETTER, True),
        (BASELINE, False),
        (Row("nnUNetTrainerNSDA"), False),
        (Row("nnUNetTrainerMCNet", "dropout=0.5,unlabeled_weight=0.0"), False),
        (Row("nnUNetTrainerMCNet", "unlabeled_weight=0.01"), True),
    ],
)
def test_rows_that_learn_from_unlabeled_cases(row, expected):
    assert learns_from_unlabeled(row) is expected


def test_without_the_labeled_cases_alone_nothing_is_compared(tmp_path):
    fake = Fake(tmp_path, flat=True, rows=(BASELINE, BETTER))
    fake.finish(fake.run(BETTER))
    write_report(tmp_path)
    assert "is not known yet: the training on the labeled cases alone" in read(fake)
    assert "1 of 2 runs have finished; 1 waiting." in read(fake)


def test_pictures_whose_files_have_gone_are_told(tmp_path):
    fake = Fake(tmp_path, rows=(BASELINE,)).finish_all()
    shutil.rmtree(fake.layout.fold(fake.design, fake.run(BASELINE)) / "validation")
    write_report(tmp_path)
    assert "2 labeled cases: no pictures, " in read(fake)


def test_unknown_published_data_set_writes_nothing(tmp_path):
    Fake(tmp_path)
    with pytest.raises(UserError, match="no published numbers of 'liver'"):
        write_report(tmp_path, published="liver")
    assert not (tmp_path / "report").exists()
