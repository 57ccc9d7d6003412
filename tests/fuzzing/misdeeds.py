"""What a reader must never do, done: the sandbox has to notice each of these."""

import ctypes
import os
import pickle
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from ncen_tf.base.errors import InputError


class _Unpickled:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.path.exists, ("/",)


def unpickles(folder: Path) -> None:
    pickle.loads(pickle.dumps(_Unpickled()))  # noqa: S301


def starts_a_program(folder: Path) -> None:
    subprocess.run(["/bin/true"], check=True)


def connects(folder: Path) -> None:
    with socket.socket() as client:
        client.settimeout(0.1)
        client.connect_ex(("127.0.0.1", 9))


def reads_outside(folder: Path) -> None:
    (folder.parent / "outside" / "secret.bin").read_bytes()


def reads_outside_in_c(folder: Path) -> None:
    ctypes.CDLL(None).fopen(os.fsencode(folder.parent / "outside" / "secret.bin"), b"r")


def reads_in_the_working_directory(folder: Path) -> None:
    Path("secret.bin").read_bytes()


def writes_outside(folder: Path) -> None:
    (folder.parent / "written").touch()


def takes_memory(folder: Path) -> None:
    b"x" * (5 << 29)


def raises(folder: Path) -> None:
    raise KeyError("format")


def says_too_little(folder: Path) -> None:
    raise InputError("")


def dies(folder: Path) -> None:
    ctypes.string_at(0)


def waits(folder: Path) -> None:
    time.sleep(3600)


MISDEEDS: dict[str, Callable[[Path], None]] = {
    function.__name__: function
    for function in (
        unpickles,
        starts_a_program,
        connects,
        reads_outside,
        reads_outside_in_c,
        reads_in_the_working_directory,
        writes_outside,
        takes_memory,
        raises,
        says_too_little,
        dies,
        waits,
    )
}
