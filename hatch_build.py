"""Put the pages of the methods into wheels; an editable installation reads them in ``docs``."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PagesHook(BuildHookInterface):
    """Add ``docs/methods`` to a standard wheel as ``nnunet_semisup/pages``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the folder, unless the wheel is that of an editable installation."""
        if version == "standard":
            build_data["force_include"]["docs/methods"] = "nnunet_semisup/pages"
