"""What is raised when something that a user gave does not work."""

LONGEST = 2000


class InputError(ValueError):
    """A flag, file or value cannot be used; the message is one sentence on what, where and the way out.

    Whatever text of a file it quotes, it is a single line, and prints as what it is.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(one_line(sentence))


def one_line(text: str) -> str:
    """Text without line breaks and control characters, and not endless."""
    line = " ".join(part.strip() for part in text.splitlines())
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
