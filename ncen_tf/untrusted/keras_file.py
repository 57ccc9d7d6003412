"""Load ``.keras`` files from other people, without running code from them and in limited memory."""

import concurrent.futures
import contextlib
import json
import math
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.untrusted.memory import MEMORY, limited_memory
from ncen_tf.untrusted.zip import check_zip

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_NOT_SAVED = 2**20
"""Bytes that the variables of a model may have beyond those in its file."""
_ARRAYS = ("__numpy__", "__tensor__")
"""Kinds of values in a configuration that take any amount of memory, however small the file is."""


def load_keras_model(file: Path) -> keras.Model:
    """Load a model in Keras's safe mode, without its optimizer, loss and metrics.

    Layers and models that are not part of Keras must be registered before
    (``keras.saving.register_keras_serializable``).

    Raises:
        InputError: The file is damaged, holds no model, has a layer that is unknown or needs code from the
            file, describes a model larger than the weights it stores, or has weights that are not finite.
    """
    try:
        with _unpacked(file) as (config, folder), limited_memory(memory_limit(file)):
            # Keras keeps a list of variables to be initialized for each thread; it must not outlive this one.
            with concurrent.futures.ThreadPoolExecutor(1) as thread:
                described = thread.submit(_described_bytes, json.loads(config)).result()
            if described > (folder / _WEIGHTS).stat().st_size + _NOT_SAVED:
                raise InputError(f"{file} describes a model of {described:,} bytes and does not store them.")
            checked = folder / "checked.keras"
            with zipfile.ZipFile(checked, "w") as archive:
                archive.writestr(_CONFIG, config)
                for name in (_METADATA, _WEIGHTS):
                    archive.write(folder / name, name)
            model = keras.saving.load_model(checked, compile=False, safe_mode=True)
    except InputError:
        raise
    except Exception as error:  # Keras and h5py have no common base class of errors.
        raise InputError(f"{file} cannot be loaded: {_reason(error)}") from error
    if not isinstance(model, keras.Model):
        raise InputError(f"{file} holds a {type(model).__name__}, not a model.")
    _check_finite(file, model)
    return model


def memory_limit(file: Path) -> int | None:
    """Return how many bytes a model of this file may allocate; ``None`` for large files and on a GPU."""
    small = file.stat().st_size < MEMORY // 2
    return MEMORY if small and not tf.config.list_physical_devices("GPU") else None


def load_weights(model: keras.Model, file: Path) -> None:
    """Give a model the weights of a ``.keras`` file of the same architecture.

    Raises:
        InputError: The file is damaged, is of another architecture, or has weights that are not finite.
    """
    try:
        with _unpacked(file) as (_, folder):
            model.load_weights(folder / _WEIGHTS)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{file} cannot be loaded: {_reason(error)}") from error
    _check_finite(file, model)


@contextlib.contextmanager
def _unpacked(file: Path) -> Iterator[tuple[str, Path]]:
    """Unpack a checked file: its configuration without compile settings, and a folder of the other parts."""
    names = check_zip(file)
    missing = [name for name in (_CONFIG, _METADATA, _WEIGHTS) if name not in names]
    if missing:
        raise InputError(f"{file} is not a .keras file: it has no {missing[0]}.")
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(file) as archive:
        config = _without_compile_settings(json.loads(archive.read(_CONFIG)))
        if any(kind in _class_names(config) for kind in _ARRAYS):
            raise InputError(f"{file} has arrays in its {_CONFIG}, which are not read: do not trust it.")
        for name in (_METADATA, _WEIGHTS):
            archive.extract(name, folder)
        _check_weights(file, Path(folder) / _WEIGHTS)
        yield json.dumps(config), Path(folder)


def _without_compile_settings(config: Any) -> Any:
    """Remove optimizers, losses and metrics, also of models inside the model, which Keras would compile."""
    if isinstance(config, dict):
        entries = {key: _without_compile_settings(value) for key, value in config.items()}
        return entries | {"compile_config": None} if "compile_config" in entries else entries
    return [_without_compile_settings(entry) for entry in config] if isinstance(config, list) else config


def _class_names(config: Any) -> Iterator[Any]:
    if isinstance(config, dict):
        yield config.get("class_name")
    inside = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    for entry in inside:
        yield from _class_names(entry)


def _check_weights(file: Path, weights: Path) -> None:
    """Refuse tensors that are larger than the file that stores them, or lie in another file."""
    size = 0

    def add(_: str, entry: h5py.Group | h5py.Dataset) -> None:
        nonlocal size
        if isinstance(entry, h5py.Dataset):
            if entry.external or entry.is_virtual or entry.dtype.hasobject:
                raise InputError(f"{file} has weights that are not plain numbers in it: do not trust it.")
            size += entry.nbytes

    with h5py.File(weights) as store:
        store.visititems(add)
    if size > weights.stat().st_size:
        raise InputError(f"{file} states {size:,} bytes of weights and does not store them.")


def _described_bytes(config: dict[str, Any]) -> int:
    """Compute the memory for the variables of a model, without allocating it."""
    with keras.StatelessScope(initialize_variables=False):
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    variables = model.variables if isinstance(model, keras.Model) else []
    return sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in variables)


def _check_finite(file: Path, model: keras.Model) -> None:
    for variable in model.weights:
        if not np.isfinite(np.asarray(variable.value, np.float32)).all():
            raise InputError(f"{file}: the weights {variable.path} contain NaN or infinity.")


def _reason(error: Exception) -> str:
    """Say what failed: an unknown layer by its name, other failures in the words of Keras."""
    unknown = re.search(r"Could not locate (?:class|function) '([^']+)'", str(error))
    if unknown:
        return (
            f"it uses {unknown[1]}, which is not part of Keras: import the module that registers it with "
            "keras.saving.register_keras_serializable."
        )
    absent = re.search(r"class '([^']+)' because its parent module (\S+) cannot be imported", str(error))
    if absent:
        return f"it uses {absent[1]} of {absent[2]}, which cannot be imported here."
    if "in a stateless scope" in str(error):
        return (
            "a layer of it makes variables before it is built, as those of KerasHub do: load it in Python "
            "and give the model itself."
        )
    if isinstance(error, MemoryError) or "OOM when allocating" in str(error):
        return "it needs far more memory than its size justifies: do not trust it."
    if "`Lambda` layer" in str(error):
        return "it has a Lambda layer with Python code, which is never run: replace it by a registered layer."
    innermost = str(error).split("Exception encountered: ")[-1]
    return f"{' '.join(innermost.split())[:300]}."
