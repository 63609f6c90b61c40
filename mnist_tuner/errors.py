"""The one error that a person causes and can mend."""


class InputError(ValueError):
    """What a person gave cannot be used.

    The message is one line: it names what was given, what was expected, and the remedy. The commands print it and exit
    with code 2.
    """
