"""How every program starts and ends: flags in, one sentence and an exit code out."""

import logging
import os
import select
import sys
from collections.abc import Callable

from absl import app, flags
from absl import logging as absl_logging

from ncen_tf.base.errors import InputError, one_line
from ncen_tf.untrusted.input_files import check_flag_size

COULD_NOT_RUN = 2
INTERRUPTED = 130
UNREAD = 141


def run(main: Callable[[], int | None]) -> None:
    """Parse flags, call ``main`` and exit with what it returns (``None`` is 0).

    Input that cannot be used ends with one sentence on stderr and exit code 2, Ctrl-C with 130, and output
    that its reader no longer takes (``| head``) with 141 and without a word, as other programs do.
    """

    def guarded(argv: list[str]) -> int | None:
        if len(argv) > 1:
            return _fail(f"Unexpected argument {argv[1]!r}: options are given as --name=value.")
        logging.getLogger("ncen_tf").setLevel(logging.INFO)
        try:
            return main()
        except InputError as error:
            return _fail(str(error))
        except OSError as error:
            if isinstance(error, BrokenPipeError) and _nobody_reads():
                raise
            where = f" ({error.filename})" if error.filename else ""
            return _fail(f"{error.strerror or error}{where}.")
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
            return INTERRUPTED

    # What goes wrong reaches Python as an exception; TensorFlow's own log is mostly about absent GPUs.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        try:
            app.run(guarded, flags_parser=_parse_flags)
        finally:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python, ending, flushes once more
        unread = isinstance(error, BrokenPipeError)
        sys.exit(UNREAD if unread else _fail(f"Standard output: {error.strerror or error}."))


def _parse_flags(argv: list[str]) -> list[str]:
    absl_logging.use_absl_handler()
    absl_logging.set_verbosity(absl_logging.WARNING)
    try:
        arguments = [argv[0], *flags.FLAGS.read_flags_from_files(argv[1:], force_gnu=False)]
        if any("\0" in argument for argument in arguments):
            raise flags.Error("A flag's value holds a zero byte.")
        rest = flags.FLAGS(arguments)
        for name in flags.FLAGS:
            check_flag_size(name, flags.FLAGS[name].value)
            if flags.FLAGS[name].present and flags.FLAGS[name].value == "":
                # Often --gate=$VARIABLE with no such variable: as if no gate had been asked for.
                raise flags.Error(f"--{name} is empty: give a value, or leave it out.")
        return rest
    except UnicodeDecodeError as error:
        sys.exit(_fail(f"A flagfile is no UTF-8 text: {error}."))
    except RecursionError:  # absl looks for flags whose names resemble an unknown one
        sys.exit(_fail("An unknown flag has a very long name (--help lists the flags)."))
    except (flags.Error, ValueError) as error:
        sys.exit(_fail(f"{error} (--help lists the flags.)"))


def _nobody_reads() -> bool:
    """Whether standard output is a pipe that was closed at the other end."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _fail(sentence: str) -> int:
    print(f"error: {one_line(sentence)}", file=sys.stderr)
    return COULD_NOT_RUN
