import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_semisup.dataset_conversion.cases import Subset
from nnunet_semisup.dataset_conversion.subsets import (
    SplitLists,
    apply_budget,
    literature_split,
    read_split_file,
)
from nnunet_semisup.errors import UserError


@pytest.mark.parametrize(("fraction", "count"), [("0.05", 4), ("0.1", 8), (".2", 16), ("8", 8)])
def test_literature_counts_of_la(fraction, count):
    split = apply_budget(literature_split("la"), fraction)
    assert len(split.labeled) == count
    assert len(split.unlabeled) == 80 - count
    assert len(split.lists.test) == 20
    assert split.labeled[0] == "06SR5RBREL16DQ6M8LWS"
    assert len(split.subset_of()) == 100


@pytest.mark.parametrize("labeled", ["0", "81", "0.15", "10%", "-1", "nan", "", "1e1"])
def test_unavailable_budget_lists_what_is_allowed(labeled):
    with pytest.raises(UserError, match=r"from 1 to 80, or a fraction .*0\.05 \(4\), 0\.1 \(8\)"):
        apply_budget(literature_split("la"), labeled)


def test_literature_needs_a_budget():
    with pytest.raises(UserError, match="Add --labeled N"):
        apply_budget(literature_split("la"))


@given(st.integers(1, 12), st.integers(0, 12), st.data())
@settings(deadline=None)
def test_every_case_is_in_one_subset(num_pool, num_unlabeled, data):
    ids = [f"c{i}" for i in range(num_pool + num_unlabeled + 3)]
    pool, rest = ids[:num_pool], ids[num_pool:-3]
    lists = SplitLists("s", "0", tuple(pool), tuple(rest), (ids[-3],), tuple(ids[-2:]))
    budget = data.draw(st.integers(1, num_pool))
    split = apply_budget(lists, str(budget))
    assert split.labeled == tuple(pool[:budget])
    subsets = split.subset_of()
    assert sorted(subsets) == sorted(ids)
    assert sum(s is Subset.UNLABELED for s in subsets.values()) == len(pool) + len(rest) - budget


def test_labeled_list_names_the_labeled_cases(tmp_path):
    lists = SplitLists("s", "0", ("a", "b", "c"), (), (), ("t",))
    file = tmp_path / "list.txt"
    file.write_text("c\n\n a \n")
    assert apply_budget(lists, labeled_list=file).labeled == ("c", "a")
    file.write_text("t\na\na\n")
    with pytest.raises(UserError) as error:
        apply_budget(lists, labeled_list=file)
    assert "t is not a training case" in str(error.value)
    assert "a is named 2 times" in str(error.value)
    file.write_text("")
    with pytest.raises(UserError, match="names no case"):
        apply_budget(lists, labeled_list=file)
    with pytest.raises(UserError, match="cannot be read"):
        apply_budget(lists, labeled_list=tmp_path / "missing.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as json"),
        ("[]", "it holds a list"),
        ('{"labeled": ["a"]}', "the key 'unlabeled' is missing"),
        ('{"labeled": ["a"], "unlabeled": [], "train": []}', "the key 'train' is unknown"),
        ('{"labeled": "a", "unlabeled": []}', "'labeled' must be a list of case names"),
        ('{"labeled": ["a"], "unlabeled": ["a"]}', "case a is named 2 times, in labeled and unl"),
    ],
)
def test_bad_split_file(tmp_path, content, message):
    file = tmp_path / "split.json"
    file.write_text(content)
    with pytest.raises(UserError) as error:
        read_split_file(file, {})
    assert message in str(error.value)


def test_split_file_takes_the_literature_s_fractions(tmp_path):
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"labeled": list("abcdefgh"), "unlabeled": ["x"]}))
    lists = read_split_file(file, literature_split("la").counts)
    assert len(apply_budget(lists, "0.05").labeled) == 4
    assert len(apply_budget(lists).labeled) == 8
    with pytest.raises(UserError, match="from 1 to 8"):
        apply_budget(lists, "0.2")
