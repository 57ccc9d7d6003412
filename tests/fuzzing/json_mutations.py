"""Damage to JSON that leaves it JSON, and some that does not."""

import copy
import json
from typing import Any

from hypothesis import strategies as st

from tests.fuzzing.byte_mutations import EDGES, mutated_bytes

_DEEP = json.loads("[" * 100 + "]" * 100)
VALUES: tuple[Any, ...] = (
    *(None, True, False, *EDGES, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", "\0", "\n", "\x1b[2J", "\ud800", "../outside/secret.bin", "x" * 10_000, "1", "nan", "true"),
    *([], {}, [None], [[]], {"": None}, [1, 2, 3], [0.5, "a"], {"value": 1}, _DEEP),
)


@st.composite
def mutated_json(draw: Any, original: bytes) -> bytes:
    """The original with one to three changes of its content, sometimes damaged as text too."""
    content = json.loads(original)
    for _ in range(draw(st.integers(1, 3))):
        content = draw(_changed(content))
    text = json.dumps(content, indent=draw(st.sampled_from((None, 2)))).encode()
    return draw(mutated_bytes(text)) if draw(st.integers(0, 4)) == 0 else text


@st.composite
def mutated_json_lines(draw: Any, original: bytes) -> bytes:
    """The same for a file with a JSON text a line."""
    lines = original.splitlines()
    number = draw(st.integers(0, len(lines) - 1))
    lines[number] = draw(mutated_json(lines[number]))
    kind = draw(st.sampled_from(("leave", "leave", "duplicate", "empty", "drop")))
    if kind == "duplicate":
        lines.insert(number, lines[draw(st.integers(0, len(lines) - 1))])
    elif kind == "empty":
        lines.insert(number, b"")
    elif kind == "drop":
        del lines[draw(st.integers(0, len(lines) - 1))]
    return b"\n".join(lines) + b"\n"


@st.composite
def _changed(draw: Any, content: Any) -> Any:
    places = list(_places(content))
    if not places:
        return draw(st.sampled_from(VALUES))
    path = draw(st.sampled_from(places))
    content = copy.deepcopy(content)
    parent, key = content, path[-1]
    for step in path[:-1]:
        parent = parent[step]
    kind = draw(
        st.sampled_from(("alike", "alike", "alike", "replace", "delete", "wrap", "rename", "copy", "whole"))
    )
    if kind == "whole":
        return draw(st.sampled_from(VALUES))
    if kind == "alike":
        parent[key] = copy.deepcopy(
            draw(st.sampled_from([v for v in VALUES if type(v) is type(parent[key])]))
        )
    elif kind == "replace":
        parent[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
    elif kind == "delete":
        del parent[key]
    elif kind == "wrap":
        parent[key] = draw(
            st.sampled_from(([parent[key]], [parent[key]] * 2, {"x": parent[key]}, str(parent[key])))
        )
    elif kind == "copy":
        other = content
        for step in draw(st.sampled_from(places)):
            other = other[step]
        parent[key] = copy.deepcopy(other)
    elif isinstance(parent, dict):
        name = draw(st.sampled_from(("", "x", "../x", "format", "\ud800", "é\n")))
        parent[name] = parent.pop(key)
    return content


def _places(content: Any, path: tuple[Any, ...] = ()) -> Any:
    if len(path) > 50:
        return
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield (*path, key)
        yield from _places(content[key], (*path, key))
