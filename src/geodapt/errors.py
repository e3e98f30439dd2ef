"""The one error that a user causes and can fix, and untrusted text made safe to show."""

import re

BREAKS = re.compile(r"\s*[\n\r\t\v\f\x1c-\x1f\x85\u2028\u2029]\s*")
"""What ends a line or moves within it, with the spaces around."""


class InputError(Exception):
    """Something given by the user is wrong: a file, a shape, a key, a value.

    The message names what was wrong, what was expected and what to do. The command line prints
    it without a traceback and exits with status 2. Each argument is a line, see
    :func:`one_line`: what it quotes of files and of other libraries' errors, whatever that holds,
    neither adds a line nor reaches the terminal as a command.
    """

    def __str__(self) -> str:
        return "\n".join(one_line(str(line)) for line in self.args)


class Diverged(InputError):
    """A training's numbers became NaN or infinite. Where several are tried, one less remains."""


class InputWarning(UserWarning):
    """Something that the user gave was left out or assumed, which may change the result.

    The command line prints it as a line of its own, see :func:`one_line`.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


def reason_of(error: BaseException) -> str:
    """What another library's error says in its first line; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def one_line(text: str) -> str:
    """The text in one line that a terminal shows as it is: line ends and tabs become a space."""
    return text if text.isprintable() else visible(BREAKS.sub(" ", text).strip())


def visible(text: str) -> str:
    """The text with control characters and lone surrogates written out, as in ``\\x1b``.

    A file's names may hold sequences that set a terminal's title, move its cursor or turn its
    writing around; lone surrogates cannot be printed at all. Line ends and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else ascii(sign)[1:-1] for sign in text
    )
