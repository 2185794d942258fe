"""The one exception for everything that a user can put right: a fact, the numbers, the remedy, in one sentence."""


class InputError(ValueError):
    """Bad input or a bad choice of settings. The command line prints it as one line, without a traceback, and exits with 2.

    The message names the place (file and line, or the key of the setting) where there is one.
    """
