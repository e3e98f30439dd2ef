"""The one error that a user causes and can fix, and untrusted text made safe to show."""


class InputError(Exception):
    """Something given by the user is wrong: a file, a shape, a key, a value.

    The message names what was wrong, what was expected and what to do. The command line prints
    it without a traceback and exits with status 2. What it quotes of files is shown by
    :func:`visible`, so that the terminal does not interpret it.
    """

    def __str__(self) -> str:
        return visible(super().__str__())


class Diverged(InputError):
    """A training's numbers became NaN or infinite. Where several are tried, one less remains."""


class InputWarning(UserWarning):
    """Something that the user gave was left out or assumed, which may change the result.

    The command line prints it as a line of its own.
    """

    def __str__(self) -> str:
        return visible(super().__str__())


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
