"""The errors that a user can cause and mend.

Each message is one sentence that says what is wrong, where, and what to do. The command line
prints it without a traceback and leaves with exit code 2; any other exception is our fault.
"""

from msa2net.text import printable


class Msa2NetError(ValueError):
    """Something outside the program is wrong and the person at the keyboard can mend it.

    Names of files, and what other libraries say of them, are foreign text: the sentence is made
    printable and bounded here, once for terminals, tables and records.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class ConfigError(Msa2NetError):
    """A configuration, option or argument does not make sense."""


class DataError(Msa2NetError):
    """An image, a label or a data set cannot be used as it is."""


class WeightsError(Msa2NetError):
    """A weight file or run folder cannot be loaded."""
