"""Turn errors of the user into a message and exit code 2, for every command."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from nnunet_semisup.errors import CaseError, UserError, WorkerError
from nnunet_semisup.preparation.environment import check_environment


def run_command(command: Callable[[], int | None]) -> None:
    """Run ``command`` and exit with its code (``None`` is 0).

    Nothing runs where nnU-Net's folders are named wrongly. After a :class:`UserError` the code is
    2, after a :class:`WorkerError` or :class:`CaseError` 1; the message comes last, and only a
    case's error that is not the system's (a full disk, a file without permission) has a traceback
    before it.
    """
    try:
        check_environment()
        sys.exit(command() or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except CaseError as error:
        if not isinstance(error.__cause__, OSError):
            traceback.print_exception(error.__cause__)
        print(f"error: {error}\nSettle that, then run the same command again.", file=sys.stderr)
        sys.exit(1)
    except WorkerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
