from pathlib import Path

from tests.unit.dataset_conversion.fault_table import page

PAGE = Path(__file__).parents[3] / "docs" / "datasets" / "faults.md"


def test_page_is_what_the_commands_say():
    assert page() == PAGE.read_text(encoding="utf-8"), (
        "type: python -m tests.unit.dataset_conversion.fault_table > docs/datasets/faults.md"
    )
