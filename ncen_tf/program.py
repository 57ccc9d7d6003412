"""How every program starts and ends: flags in, one sentence and an exit code out.

A program is a :class:`~ncen_tf.base.settings.Settings` class, whose fields are its flags, and a function that
takes an object of it. Only the ``__main__`` modules use this module.
"""

import importlib
import logging
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from absl import app, flags
from absl import logging as absl_logging

from ncen_tf.base.errors import InputError, one_line
from ncen_tf.base.settings import Settings

S = TypeVar("S", bound=Settings)

PROGRAMS = ("train", "export", "attack", "sweep", "tables", "transfer", "diagnose")
INTERRUPTED = 130
_COULD_NOT_RUN = 2
_NOT_READ = 141


def run(settings: type[S], main: Callable[[S], int | None]) -> None:
    """Parse the command line, call ``main``, and exit with what it returns (``None`` means 0).

    Unusable input ends with one sentence on stderr and exit code 2, Ctrl-C with 130, and a closed pipe as
    standard output (``| head``) with 141.

    Args:
        settings: Class whose fields are the flags.
        main: Function that does the work.
    """
    by_path = {path: flag.name for flag in flags_of(settings) for path in (flag.name, ".".join(flag.path))}

    def translate(sentence: str) -> str:
        """Write `parameter` as --parameter where it is a flag of this program."""
        return re.sub(r"`([\w.]+)`", lambda m: f"--{by_path[m[1]]}" if m[1] in by_path else m[0], sentence)

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
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
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


def console() -> None:
    """Run ``ncen-tf PROGRAM --flag=value ...``, which is ``python -m ncen_tf.PROGRAM --flag=value ...``."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in PROGRAMS:
        asked_for_help = name in ("-h", "--help", "help")
        print(f"usage: ncen-tf {'|'.join(PROGRAMS)} --flag=value ... (--help lists a program's flags)")
        sys.exit(0 if asked_for_help else _COULD_NOT_RUN)
    sys.argv = [f"ncen-tf {name}", *sys.argv[2:]]
    module: Any = importlib.import_module(f"ncen_tf.{name}.__main__")
    module.run()


class FlagField(NamedTuple):
    """A field of a settings class, or of one of its nested choices, as a flag."""

    name: str
    path: tuple[str, ...]
    """Names of the fields that lead to it; a choice such as ``regularizer`` adds the chosen name."""
    type: Any
    default: Any
    help: str


def flags_of(settings: type[Any]) -> list[FlagField]:
    """List the flags that a settings class defines.

    A field whose type is a union of settings with a ``name`` (``NCE | GAL | None``) is a flag that chooses
    one of them (``--regularizer=nce``, or ``none``), followed by the fields of each. A field's flag has its
    name, or ``json_schema_extra={"flag": ...}`` where that would not say what it belongs to; ``None`` there
    means no flag.
    """
    return list(_walk(settings, ()))


def _walk(settings: type[Any], path: tuple[str, ...]) -> Iterator[FlagField]:
    for field_name, field in settings.__pydantic_fields__.items():
        extra = field.json_schema_extra or {}
        name = extra.get("flag", field_name)
        kinds, optional = _kinds(field.annotation)
        here = (*path, field_name)
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if name is None or (path and field_name == "name"):
            continue
        if hasattr(kinds[0], "__pydantic_fields__"):
            choices = {kind.__pydantic_fields__["name"].default: kind for kind in kinds}
            chosen = getattr(default, "name", "none")
            names = tuple(["none", *choices] if optional else choices)
            yield FlagField(name, here, typing.Literal[names], chosen, field.description or "")
            for choice, kind in choices.items():
                yield from _walk(kind, (*here, choice))
        else:
            yield FlagField(name, here, kinds[0], default, field.description or "")


def _kinds(annotation: Any) -> tuple[list[Any], bool]:
    """The members of a union without ``None``, and whether ``None`` was among them."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(annotation) if part is not type(None)]
        return [kind for part in parts for kind in _kinds(part)[0]], len(parts) < len(
            typing.get_args(annotation)
        )
    return [annotation], False


class _NumberParser(flags.FloatParser):
    """A number, or a fraction such as 8/255."""

    def convert(self, argument: str | float) -> float:
        numerator, slash, denominator = str(argument).partition("/")
        try:
            return float(numerator) / float(denominator) if slash else float(numerator)
        except ZeroDivisionError:
            raise ValueError("division by zero") from None


def _define_flags(settings: type[Settings]) -> None:
    for flag in flags_of(settings):
        text = flag.help if flag.default in (None, ()) else f"{flag.help} (default: {_text(flag.default)})"
        where: dict[str, Any] = {"module_name": sys.argv[0]}
        if typing.get_origin(flag.type) is typing.Literal:
            flags.DEFINE_enum(flag.name, None, [str(v) for v in typing.get_args(flag.type)], text, **where)
        elif typing.get_origin(flag.type) is tuple:
            flags.DEFINE_list(flag.name, None, text, **where)
        elif flag.type is bool:
            flags.DEFINE_bool(flag.name, None, text, **where)
        elif flag.type is int:
            flags.DEFINE_integer(flag.name, None, text, **where)
        elif flag.type is float:
            flags.DEFINE(
                _NumberParser(), flag.name, None, text, serializer=flags.ArgumentSerializer(), **where
            )
        else:
            flags.DEFINE_string(flag.name, None, text, **where)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _read_flags(settings: type[S]) -> S:
    """Make the settings of the flags that were given.

    A settings class with a method ``from_flags`` is given a dict of flag names and values, and makes itself.
    """
    given = {
        flag.name: flags.FLAGS[flag.name].value
        for flag in flags_of(settings)
        if flags.FLAGS[flag.name].present
    }
    make: Callable[..., S] | None = getattr(settings, "from_flags", None)
    return make(given) if make else settings(**given)


def _parse(argv: list[str]) -> list[str]:
    absl_logging.use_absl_handler()
    absl_logging.set_verbosity(absl_logging.WARNING)
    try:
        arguments = [argv[0], *flags.FLAGS.read_flags_from_files(argv[1:], force_gnu=False)]
        rest: list[str] = flags.FLAGS(arguments)
    except UnicodeDecodeError as error:
        sys.exit(_fail(f"The flagfile is not UTF-8 text: {error}."))
    except (flags.Error, ValueError, RecursionError) as error:
        sys.exit(_fail(f"{error} (--help lists the flags.)"))
    for name in flags.FLAGS:
        if flags.FLAGS[name].present and flags.FLAGS[name].value == "":
            # Often --gate=$VARIABLE where the variable is not set: the gate would be switched off.
            sys.exit(_fail(f"--{name} is empty: give a value, or leave the flag out."))
    return rest


def _fail(sentence: str) -> int:
    print(f"error: {one_line(sentence)}", file=sys.stderr)
    return _COULD_NOT_RUN
