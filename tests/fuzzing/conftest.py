"""One worker for all tests here: it imports TensorFlow once."""

import sys
from collections.abc import Iterator

import pytest

from tests.fuzzing.case import Files
from tests.fuzzing.sandbox import Sandbox, temporary_sandbox

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]  # inotify and /proc watch the worker


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with temporary_sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def seeds(sandbox: Sandbox) -> dict[str, Files]:
    return sandbox.seeds()
