"""The one exception that stands for a mistake the user can mend."""


class UserError(Exception):
    """What a user did, or gave, that cannot be worked with.

    The message is one line: the file, what was expected, what was found, and what to do. The command line
    prints it on standard error and leaves with status 2; from Python it is an ordinary exception.
    """
