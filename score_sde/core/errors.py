"""The ways in which this library says no, and the one in which it stops when asked."""


class InputError(ValueError):
    """Input that cannot be used: the message names the value, what was expected, and the remedy.

    The command line prints the message alone, without a stack trace, and exits with status 1.
    """

    def __init__(self, message: object = "") -> None:
        # A value that is shown, such as an array, may have several lines.
        super().__init__(" ".join(str(message).split()))


class DivergenceError(ArithmeticError):
    """A computation whose result is not finite: training or sampling that ran away.

    Attributes:
        examples: the places in the batch where it happened, where that is known.
    """

    def __init__(self, message: str, examples: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.examples = examples


class StorageError(OSError):
    """A file that could not be written, as on a full disk: what is there already stays as it is."""


class Stopped(Exception):
    """A run that ended early because it was asked to, with all it had done saved; the command line exits with 0."""
