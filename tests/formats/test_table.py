from pathlib import Path

import pytest

from tests.formats.table import page, versions

PAGE = Path(__file__).parents[2] / "docs" / "datasets" / "formats.md"


def test_page_is_what_libraries_and_commands_do():
    text = PAGE.read_text(encoding="utf-8")
    if versions() not in text:
        pytest.skip(f"the page was printed with other versions than: {versions()}")
    assert page() == text, "type: python -m tests.formats.table > docs/datasets/formats.md"
