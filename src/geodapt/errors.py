"""The one error that a user causes and can mend."""


class InputError(Exception):
    """Something given by the user is wrong: a file, a shape, a key, a value.

    The message names what was wrong, what was expected and what to do. The command line prints
    it without a traceback and exits with status 2.
    """


class InputWarning(UserWarning):
    """Something given by the user was left out or assumed, and the result may differ by it.

    The command line prints it as a line of its own.
    """
