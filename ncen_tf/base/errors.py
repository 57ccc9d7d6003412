"""Errors with a message for the user."""

LONGEST = 2000


class InputError(ValueError):
    """A flag, file or value cannot be used; the message is one sentence on what, where and the way out.

    Whatever text of a file it quotes, it is a single line, and prints as what it is.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(one_line(sentence))


class LostWorkerError(Exception):
    """Another worker of a multi-worker training has ended or cannot be reached."""


def one_line(text: str) -> str:
    """Text without line breaks and control characters, and not endless."""
    line = " ".join(part.strip() for part in text.splitlines())
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
