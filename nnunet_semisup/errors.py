"""Define the exceptions that the commands turn into a message and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Report bad input from the user.

    The message says what was given, what is allowed and what to do next. It is raised before
    anything is written that depends on that input.
    """


class WorkerError(RuntimeError):
    """Report a background process that ended without a result; the message says what to try."""


class CaseError(RuntimeError):
    """Report a case on which the work failed: the message has its name, the cause says why."""


class DivergedError(RuntimeError):
    """Report that the weights of a training are no finite numbers any more."""


@contextmanager
def exit_code_two_in_commands() -> Iterator[None]:
    """End nnU-Net's own commands, which know no UserError, with its message and code 2.

    Elsewhere (a script, a notebook, a test) the exception passes through.
    """
    try:
        yield
    except UserError as error:
        if not os.path.basename(sys.argv[0]).startswith("nnUNetv2_"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
