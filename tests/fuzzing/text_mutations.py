"""Damage to files that people write: TOML, flagfiles, grids."""

import re
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from tests.fuzzing.byte_mutations import mutated_bytes

VALUES = (
    *(
        "",
        "0",
        "-1",
        "1e999",
        "nan",
        "inf",
        "-inf",
        "9" * 5000,
        "1" + "0" * 400,
        "1_000",
        "0x10",
        "0x" + "f" * 5000,
        "1.5",
        "true",
    ),
    *('""', '"x"', '"\\u0000"', '"\\ud800"', "'''x\ny'''", '"x', "[]", "[1, 2]", "{}", "{a = 1}", "[" * 5000),
    *(
        "1979-05-27",
        "1979-13-45",
        "25:00:00",
        "../outside/secret.bin",
        "x" * 10_000,
        "é",
        "\x1b[2J",
        "\0",
        "|",
        "=",
    ),
    "{a=" * 5000,
)


@st.composite
def mutated_text(draw: Any, original: bytes, lines: Sequence[str] = ()) -> bytes:
    """The original with one to three changes, sometimes damaged as bytes too.

    Args:
        draw: of hypothesis.
        original: UTF-8.
        lines: more that may be put in.
    """
    text = original.decode()
    for _ in range(draw(st.integers(1, 3))):
        parts = text.split("\n")
        number = draw(st.integers(0, len(parts) - 1))
        kind = draw(st.sampled_from(("value", "value", "word", "drop", "repeat", "swap", "line")))
        if kind == "value":
            head, sign, _ = parts[number].partition("=")
            parts[number] = f"{head}{sign}{draw(st.sampled_from(VALUES))}"
        elif kind == "word":
            words = list(re.finditer(r"[\w.+-]+", parts[number]))
            if words:
                word = draw(st.sampled_from(words))
                new = draw(st.one_of(st.sampled_from(VALUES), st.text(max_size=4)))
                parts[number] = parts[number][: word.start()] + new + parts[number][word.end() :]
        elif kind == "drop":
            del parts[number]
        elif kind == "repeat":
            parts[number:number] = [parts[number]] * draw(st.integers(1, 3))
        elif kind == "swap":
            other = draw(st.integers(0, len(parts) - 1))
            parts[number], parts[other] = parts[other], parts[number]
        elif lines:
            parts.insert(number, draw(st.sampled_from(lines)))
        text = "\n".join(parts)
    content = text.encode(errors="surrogatepass")
    return draw(mutated_bytes(content)) if draw(st.integers(0, 4)) == 0 else content
