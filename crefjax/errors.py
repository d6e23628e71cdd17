"""The exceptions for mistakes that the user can correct."""


class UserError(Exception):
    """An input, a setting, or an environment that cannot be worked with.

    The message is one line: the file, what was expected, what was found, and what to do. The command line prints it on
    standard error and exits with status 2; from Python it is an ordinary exception.

    Attributes:
        text: the message without the path.
        path: file or folder that the message is about, or None.
    """

    def __init__(self, text: str, *, path=None):
        # One line, whatever characters the path holds.
        super().__init__(text if path is None else " ".join(f"{path}: {text}".splitlines()))
        self.text, self.path = text, path


class CannotWriteError(UserError):
    """The file system refused to write: this concerns all entries or downloads of a command, not just one."""


def path_error(path, text: str) -> UserError:
    """Return the UserError `path: text`."""
    return UserError(text, path=path)
