"""Find out before a training starts whether pretrained weights can be had."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from urllib.parse import urlparse


class UnavailableError(Exception):
    """Report weights neither here nor possible to download; the message says why."""


def find(repository: str, filenames: Sequence[str]) -> str | None:
    """Find the first of ``filenames`` in the local cache; ``None``: the hub has to give it.

    Args:
        repository: name on the Hugging Face hub.
        filenames: of the weights, the preferred one first.

    Raises:
        UnavailableError: not cached, and the hub is switched off or cannot be reached.
        ImportError: huggingface_hub is not installed.
    """
    import huggingface_hub

    for filename in filenames:
        cached = huggingface_hub.try_to_load_from_cache(repository, filename)
        if isinstance(cached, str):
            return cached
    if huggingface_hub.constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE") == "1":
        raise UnavailableError("they are not in the local cache and HF_HUB_OFFLINE is set")
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return None
    host = urlparse(huggingface_hub.constants.ENDPOINT).hostname or ""
    try:
        socket.create_connection((host, 443), timeout=3).close()
    except OSError as error:
        raise UnavailableError(
            f"they are not in the local cache and {host} is not reachable"
        ) from error
    return None
