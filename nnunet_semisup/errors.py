"""The one exception that the commands turn into a message and exit code 2."""


class UserError(ValueError):
    """Bad input from the user.

    The message says what was given, what is allowed and what to do next. It is raised before
    anything is written.
    """
