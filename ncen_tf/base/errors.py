"""Errors with a message for the user."""

LONGEST = 2000


class InputError(ValueError):
    """A parameter, flag or file cannot be used.

    The message is one sentence: what is wrong, where, and what to do. It names parameters in backticks, which
    programs print as flags. Text that it quotes from a file is printed as a single line.

    Examples:
        >>> import ncen_tf
        >>> try:
        ...     ncen_tf.AdversarialTraining(eps=-1)
        ... except ncen_tf.InputError as error:
        ...     print(error)
        `eps` must be greater than 0, got -1.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(one_line(sentence))


class LostWorkerError(Exception):
    """Another worker of a multi-worker training has ended or cannot be reached."""


def one_line(text: str) -> str:
    """Replace line breaks and control characters, and shorten a very long text."""
    line = " ".join(part.strip() for part in text.splitlines())
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
