"""The pages of methods with what the registry and the classes give.

python -m tests.unit.method_pages
"""

from __future__ import annotations

from nnunet_semisup.cli._pages import pages_folder, with_generated


def main() -> None:
    """Write the generated part of every page anew."""
    for page in sorted(pages_folder().glob("*.md")):
        page.write_text(with_generated(page), encoding="utf-8")


if __name__ == "__main__":
    main()
