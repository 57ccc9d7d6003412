"""What the pages say can be done: commands, links and examples."""

import importlib
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from ncen_tf.base.flags import flags_of
from ncen_tf.base.settings import Settings
from ncen_tf.program import PROGRAMS

ROOT = Path(__file__).parents[1]
PAGES = [
    page for pattern in ("*.md", "docs/*.md", "docs/*/*.md", "exports/*.md") for page in ROOT.glob(pattern)
]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _flags_of_program(name: str) -> set[str]:
    module = importlib.import_module(f"ncen_tf.{name}" if name == "diagnose" else f"ncen_tf.{name}.__main__")
    classes = [
        value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__
    ]
    names = {flag.name for kind in classes if _is_settings(kind) for flag in flags_of(kind)}
    return names | {f"no{name}" for name in names} | {"help", "helpshort", "flagfile"}


def _is_settings(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Settings)


def _code(text: str) -> Iterator[str]:
    """Iterate over fenced blocks, indented blocks, and code in sentences."""
    yield from (block for _, block in BLOCK.findall(text))
    yield from re.findall(r"(?:^ {4}.*\n)+|`[^`]+`", BLOCK.sub("", text), re.MULTILINE)


@each_page
def test_commands_name_flags_and_files_that_exist(page: Path) -> None:
    for code in _code(page.read_text(encoding="utf-8")):
        commands = re.sub(r"\\\n\s*", "", code)
        for program, arguments in re.findall(r"(?:ncen-tf |-m ncen_tf\.)([a-z]+)([^\n;&]*)", commands):
            assert program in PROGRAMS
            for flag, value in re.findall(r"--(\w+)=?(\S*)", arguments):
                assert flag in _flags_of_program(program)
                if value.startswith(("configs/", "exports/reference")):
                    assert (ROOT / value).exists()


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if not link.startswith("https://"):
            file, _, anchor = link.partition("#")
            target = page.parent / file if file else page
            assert target.exists(), link
            schemes = {"only-light", "only-dark"}  # the site shows such a picture in one colour scheme
            assert not anchor or anchor in (schemes if target.suffix == ".png" else _anchors(target)), link


@pytest.mark.parametrize(
    ("page", "number"), [("defences", 0), ("export", 0), ("onnx_gradients", 0), ("onnx_gradients", 1)]
)
def test_examples_of_guides_run(
    page: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = BLOCK.findall((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"))
    example = [code for language, code in blocks if language == "python"][number]
    (tmp_path / "exports").symlink_to(ROOT / "exports")
    (tmp_path / "example.py").write_text(example)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("example.py")
