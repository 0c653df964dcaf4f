"""The one exception that stands for a user's mistake."""


class InputError(ValueError):
    """Bad input: a file, a setting or an argument that cannot be used.

    The message is ONE line that says where (file and line, argument or setting), what was found and
    what was expected. The command line prints it without a traceback and exits with code 2.
    """
