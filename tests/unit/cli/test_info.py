"""``nnUNetv2_semisup_info``: the registry, the hyper-parameters, nnU-Net's search."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from nnunet_semisup import _discovery
from nnunet_semisup.cli import _lookup, info
from nnunet_semisup.cli._hyperparameters import attribute_docstrings, hyperparameters
from nnunet_semisup.cli._pages import passes, prose
from nnunet_semisup.registry import FAMILIES, METHODS, find_method


def run(*arguments):
    with pytest.raises(SystemExit) as error:
        info.main(list(arguments))
    return error.value.code


def test_every_method_is_listed(capsys):
    assert run() == 0
    printed = capsys.readouterr().out
    for method in METHODS:
        assert method.trainer in printed
        assert method.paper in printed


def test_markdown_links_the_papers(capsys):
    assert run("--markdown") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(METHODS)
    for method in METHODS:
        (line,) = (line for line in lines if f"[{method.trainer}]" in line)
        assert f"({method.url})" in line
        assert f"(docs/methods/{method.page or method.module}.md)" in line


@pytest.mark.parametrize("form", ["", "--markdown"])
def test_methods_stand_by_family(capsys, form):
    assert run(*filter(None, [form])) == 0
    printed = capsys.readouterr().out
    order = sorted(METHODS, key=lambda m: (list(FAMILIES).index(m.family), METHODS.index(m)))
    places = [re.search(rf"\b{m.trainer}\b", printed).start() for m in order]
    assert places == sorted(places)
    assert all((text[1:] in printed) == (form == "") for text in FAMILIES.values())


def test_json_is_the_registry(capsys):
    assert run("--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["trainer"], row["year"]) for row in rows] == [(m.trainer, m.year) for m in METHODS]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.trainer)
def test_the_page_of_a_trainer_is_printed(capsys, method):
    assert run(method.trainer) == 0
    printed = capsys.readouterr().out
    assert prose(method) in printed
    assert passes(method) in printed


def test_listing_imports_no_torch():
    code = (
        "import sys\n"
        "from nnunet_semisup.cli.info import main\n"
        "try:\n    main([])\n"
        "except SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules and 'nnunetv2' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_hyperparameters_come_with_type_default_and_meaning():
    found = {h.name: h for h in hyperparameters(find_method("nnUNetTrainerVQSeg"))}
    epsilon = found["qpm_epsilon"]
    assert (epsilon.kind, epsilon.default) == ("float (0 to 1)", "0.7")
    assert found["qpm_view"].kind == "strong | weak"
    assert found["num_epochs"].kind == "int (at least 1)"
    assert epsilon.declared_by == "nnUNetTrainerVQSeg"
    assert "code is swapped" in epsilon.description
    assert found["ema_decay"].declared_by == "TeacherTrainer"
    assert found["num_epochs"].default == "1000"
    assert found["num_epochs"].declared_by == "nnUNetTrainer"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.trainer)
def test_every_hyperparameter_of_every_method_is_documented(method):
    undocumented = [h.name for h in hyperparameters(method) if len(h.description) < 5]
    assert undocumented == []


def test_an_overridden_default_is_the_one_shown():
    found = {h.name: h for h in hyperparameters(find_method("nnUNetTrainerMeanTeacher"))}
    assert found["unlabeled_weight"].default == "0.1"


class Documented:
    first: int = 1
    """Said
    twice."""
    second: int = 2
    third: int = 3
    """Once."""


def test_docstrings_belong_to_the_attribute_above():
    assert attribute_docstrings(Documented) == {"first": "Said twice.", "third": "Once."}


def test_code_is_marked_in_markdown_only(capsys):
    assert run("nnUNetTrainerVQSeg") == 0
    assert "``" not in capsys.readouterr().out.replace("```", "")
    assert run("nnUNetTrainerVQSeg", "--markdown") == 0
    assert "``strong``" in capsys.readouterr().out


def test_one_trainer_as_json(capsys):
    assert run("nnUNetTrainerVQSeg", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["trainer"] == "nnUNetTrainerVQSeg"
    assert "qpm_epsilon" in [h["name"] for h in content["hyperparameters"]]


def test_unknown_trainer_lists_the_known_ones(capsys):
    assert run("nnUNetTrainerVQ") == 2
    message = capsys.readouterr().err
    assert "nnUNetTrainerVQ." in message
    assert "nnUNetTrainerVQSeg" in message


def test_check_passes_in_this_environment(monkeypatch, capsys):
    monkeypatch.setenv(_discovery.VARIABLE, _discovery.EXT_FOLDER)
    monkeypatch.delenv(_discovery.OPT_OUT, raising=False)
    assert run("nnUNetTrainerSupervised", "--check") == 0
    assert capsys.readouterr().out == "nnUNetTrainerSupervised: found by nnU-Net\n"


@pytest.mark.parametrize(
    ("variables", "error", "expected"),
    [
        ({_discovery.OPT_OUT: "0"}, RuntimeError("no"), "unset it"),
        ({_discovery.VARIABLE: "/elsewhere"}, RuntimeError("no"), _discovery.EXT_FOLDER),
        (
            {_discovery.VARIABLE: _discovery.EXT_FOLDER},
            RuntimeError("operator torchvision::nms does not exist"),
            "belongs to the installed torch",
        ),
        ({_discovery.VARIABLE: _discovery.EXT_FOLDER}, KeyError("odd"), "KeyError: 'odd'"),
    ],
)
def test_a_failed_search_says_why(monkeypatch, capsys, variables, error, expected):
    monkeypatch.delenv(_discovery.OPT_OUT, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    def fail(_):
        raise error

    monkeypatch.setattr(_lookup, "resolve", fail)
    assert run("nnUNetTrainerVQSeg", "--check") == 1
    assert expected in capsys.readouterr().out


def test_a_class_of_the_same_name_elsewhere_is_reported(monkeypatch, capsys):
    monkeypatch.setattr(_lookup, "resolve", lambda _: Documented)
    assert run("nnUNetTrainerVQSeg", "--check") == 1
    assert __name__ in capsys.readouterr().out
