"""This module defines the errors of the library, and the exception that ends a run on request."""


class InputError(ValueError):
    """`InputError` reports input that cannot be used; the message has the value, what was expected, and the remedy.

    The command line prints the message alone, without a stack trace, and exits with status 1.
    """

    def __init__(self, message: object = "") -> None:
        # The text of a value in the message, such as an array, may have several lines.
        super().__init__(" ".join(str(message).split()))


class DivergenceError(ArithmeticError):
    """`DivergenceError` reports a result that is not finite, for example of training or of sampling.

    Attributes:
        examples: positions in the batch of the examples that failed, if they are known.
    """

    def __init__(self, message: str, examples: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.examples = examples


class StorageError(OSError):
    """`StorageError` reports a file that could not be written, as on a full disk; existing files do not change."""


class Stopped(Exception):
    """`Stopped` reports that a run ended early on request and saved its work; the command line exits with status 0."""
