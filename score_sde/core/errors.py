"""The two ways in which this library says no."""


class InputError(ValueError):
    """Input that cannot be used: the message names the value, what was expected, and the remedy.

    The command line prints the message alone, without a stack trace, and exits with status 1.
    """


class DivergenceError(ArithmeticError):
    """A computation whose result is not finite: training or sampling that ran away."""
