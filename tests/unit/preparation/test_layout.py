from pathlib import Path

from nnunet_semisup.preparation import layout


def test_stamp_and_partial_cases_lie_beside_the_case_folder(tmp_path):
    folder = layout.unlabeled_folder(tmp_path, "nnUNetPlans_2d")
    assert folder == tmp_path / "nnUNetPlans_2d_unlabeled"
    others = {
        layout.stamp_file(tmp_path, "nnUNetPlans_2d"),
        layout.partial_folder(tmp_path, "nnUNetPlans_2d"),
    }
    assert layout.stamp_file(tmp_path, "nnUNetPlans_2d").name == "nnUNetPlans_2d_unlabeled.json"
    assert {path.parent for path in others} == {tmp_path}
    assert folder not in others


def test_strings_and_paths_are_equal():
    assert layout.unlabeled_folder("a", "b") == layout.unlabeled_folder(Path("a"), "b")
