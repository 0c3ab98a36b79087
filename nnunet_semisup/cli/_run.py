"""What every command shares: errors of the user become a message and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable

from nnunet_semisup.errors import UserError, WorkerError


def run_command(command: Callable[[], int | None]) -> None:
    """Run ``command`` and exit with its code (``None`` is 0).

    After a :class:`UserError` the code is 2, after a :class:`WorkerError` 1; the message is all
    that is printed.
    """
    try:
        sys.exit(command() or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except WorkerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
