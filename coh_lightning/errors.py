"""The one exception for everything that a user can put right: a fact, the numbers, the remedy, in one sentence; and how
a library's words come into it.
"""


class InputError(ValueError):
    """Bad input or a bad choice of settings. The command line prints it as one line, without a traceback, and exits
    with 2.

    The message names the place (file and line, or the key of the setting) where there is one.
    """


def words_of(error: BaseException) -> str:
    """What a library's exception says, for a message of ours: its first line, printable and not too long, or its name
    where it says nothing.
    """
    line = (str(error).strip().splitlines() or [""])[0]
    line = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line[:300])
    return line or type(error).__name__
