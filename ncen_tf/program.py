"""How every program starts and ends: flags in, one sentence and an exit code out.

A program is a :class:`~ncen_tf.base.settings.Settings` class, whose fields are its flags, and a function that
takes an object of it. Only the ``__main__`` modules use this module.
"""

import logging
import os
import re
import runpy
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from absl import app, flags, logging as absl_logging

from ncen_tf.base.errors import InputError, LostWorkerError, one_line
from ncen_tf.base.flags import FlagField, flags_of, parse_number, unflatten
from ncen_tf.base.settings import Settings

S = TypeVar("S", bound=Settings)

PROGRAMS = ("train", "export", "attack", "sweep", "tables", "transfer", "diagnose")
INTERRUPTED = 130
_COULD_NOT_RUN = 2
_WORKER_LOST = 75
_NOT_READ = 141


def run(settings: type[S], main: Callable[[S], int | None]) -> None:
    """Parse the command line, call ``main``, and exit with what it returns (``None`` means 0).

    Unusable input ends with one sentence on stderr and exit code 2, a lost worker with 75, Ctrl-C with 130,
    and a closed pipe as standard output (``| head``) with 141.

    Args:
        settings: Class whose fields are the flags.
        main: Function that does the work.
    """
    by_path = {".".join(flag.path): flag.name for flag in flags_of(settings)}
    by_path |= {name: name for name in by_path.values()}

    def translate(sentence: str) -> str:
        """Write `parameter` as --parameter where it is a flag of this program."""
        # A value of a list is named `mean.0`; its flag is --mean.
        return re.sub(
            r"`([\w.]+?)(\.\d+)?`", lambda m: f"--{by_path[m[1]]}" if m[1] in by_path else m[0], sentence
        )

    def guarded(argv: list[str]) -> int | None:
        logging.getLogger("ncen_tf").setLevel(logging.INFO)
        try:
            if len(argv) > 1:
                raise InputError(f"Unexpected argument {argv[1]!r}: options are given as --name=value.")
            return main(_read_flags(settings))
        except InputError as error:
            return _fail(translate(str(error)))
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            return _fail(f"{error.strerror or error}{where}.")
        except LostWorkerError as error:
            _fail(str(error))
            sys.stdout.flush()
            os._exit(_WORKER_LOST)  # an orderly end of TensorFlow would wait for the lost worker
        except KeyboardInterrupt as error:
            print(f"Interrupted. {error}", file=sys.stderr)
            return INTERRUPTED

    # TensorFlow's own log is mostly about absent GPUs; what goes wrong reaches Python as an exception.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _define_flags(settings)
    try:
        try:
            app.run(guarded, flags_parser=_parse)
        finally:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at exit.
        closed = isinstance(error, BrokenPipeError)
        sys.exit(_NOT_READ if closed else _fail(f"Standard output: {error.strerror or error}."))


def report_folder(target: Path, ending: str) -> Path:
    """Return reports/TARGET-ENDING; a file inside an export is named after the export too."""
    path = target.resolve()
    parts = [path.parent.name, path.stem] if path.is_file() else [path.name]
    return Path("reports") / "-".join([*parts, ending])


def console() -> None:
    """Run ``ncen-tf PROGRAM --flag=value ...``, which is ``python -m ncen_tf.PROGRAM --flag=value ...``."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in PROGRAMS:
        asked_for_help = name in ("-h", "--help", "help")
        print(f"usage: ncen-tf {'|'.join(PROGRAMS)} --flag=value ... (--help lists a program's flags)")
        sys.exit(0 if asked_for_help else _COULD_NOT_RUN)
    sys.argv = [f"ncen-tf {name}", *sys.argv[2:]]
    runpy.run_module(f"ncen_tf.{name}", run_name="__main__", alter_sys=True)


class _NumberParser(flags.FloatParser):
    def convert(self, argument: str | float) -> float:
        return parse_number(argument)


def _define_flags(settings: type[Settings]) -> None:
    for flag in flags_of(settings):
        text = _help_text(flag, getattr(settings, "defaults_for", {}))
        where: dict[str, Any] = {"module_name": sys.argv[0]}
        simple = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer}
        define: Any = simple.get(flag.type, flags.DEFINE_string)
        if typing.get_origin(flag.type) is typing.Literal:
            flags.DEFINE_enum(flag.name, None, [str(v) for v in typing.get_args(flag.type)], text, **where)
        elif typing.get_origin(flag.type) is tuple:
            flags.DEFINE_list(flag.name, None, text, **where)
        elif flag.type is float:
            serializer: Any = flags.ArgumentSerializer()
            flags.DEFINE(_NumberParser(), flag.name, None, text, serializer=serializer, **where)
        else:
            define(flag.name, None, text, **where)


def _help_text(flag: FlagField, defaults_for: dict[str, dict[str, Any]]) -> str:
    notes = [flag.bounds] if flag.bounds else []
    if flag.default not in (None, ()):
        notes.append(f"default: {_text(flag.default)}")
        for dataset, defaults in defaults_for.items():
            if flag.name in defaults:
                notes.append(f"{dataset}: {_text(defaults[flag.name])}")
    return f"{flag.help} ({'; '.join(notes)})" if notes else flag.help


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _read_flags(settings: type[S]) -> S:
    """Make the settings of the flags that were given.

    A settings class with a method ``from_flags`` makes itself of a dictionary of flag names and values.
    """
    given = {
        flag.name: flags.FLAGS[flag.name].value
        for flag in flags_of(settings)
        if flags.FLAGS[flag.name].present
    }
    make: Callable[..., S] | None = getattr(settings, "from_flags", None)
    return make(given) if make else settings(**unflatten(settings, given))


def _parse(argv: list[str]) -> list[str]:
    absl_logging.use_absl_handler()
    absl_logging.set_verbosity(absl_logging.WARNING)
    try:
        arguments = [argv[0], *flags.FLAGS.read_flags_from_files(argv[1:], force_gnu=False)]
        rest: list[str] = flags.FLAGS(arguments)
    except SystemExit:
        sys.exit(0)  # --help was printed, after which absl exits with 1
    except UnicodeDecodeError as error:
        sys.exit(_fail(f"The flagfile is not UTF-8 text: {error}."))
    except (flags.Error, ValueError, RecursionError) as error:
        sys.exit(_fail(f"{error} (--help lists the flags.)"))
    for name in flags.FLAGS:
        if flags.FLAGS[name].present and flags.FLAGS[name].value in ("", []):
            # Often --gate=$VARIABLE where the variable is not set: the gate would be switched off.
            sys.exit(_fail(f"--{name} is empty: give a value, or leave the flag out."))
    return rest


def _fail(sentence: str) -> int:
    print(f"error: {one_line(sentence)}", file=sys.stderr)
    return _COULD_NOT_RUN
