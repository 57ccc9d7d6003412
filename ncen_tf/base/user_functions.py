"""Functions of a user's module, named as ``module:function``."""

import importlib
import re
import sys
from collections.abc import Callable
from typing import Any

from ncen_tf.base.errors import InputError

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_function_name(name: str) -> bool:
    """Tell whether a name has the form ``module:function``."""
    return _NAME.fullmatch(name) is not None


def import_function(name: str) -> Callable[..., Any]:
    """Import ``module:function``; the module may be a file of the working directory.

    Raises:
        InputError: The module cannot be imported, or has no such function.
    """
    module, _, function = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever a user's module raises
        raise InputError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise InputError(f"{name} is a {type(found).__name__}, not a function.")
    return found
