"""``.keras`` files as input: a stranger's, too, is read without running code or taking more than it holds."""

import concurrent.futures
import contextlib
import math
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
from ncen_tf.untrusted.input_files import parse_json
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.untrusted.zip_files import check_zip

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_UNSAVED = 2**20
"""Bytes that a model's variables may have beyond those in its file."""
_ARRAYS = ("__numpy__", "__tensor__")
"""What Keras makes of these takes any amount of memory, however few bytes describe it."""


def read_ensemble(file: Path) -> Ensemble:
    """The ensemble in a ``.keras`` file, in Keras's safe mode.

    Raises:
        InputError: a damaged file, no ensemble, code in it, or a model larger than the weights stored.
    """
    try:
        with _unpacked(file) as (config, weights):
            # Keras keeps a list of variables still to be filled for each thread: this one ends.
            with concurrent.futures.ThreadPoolExecutor(1) as thread:
                described = thread.submit(_described_bytes, config).result()
            if described > weights.stat().st_size + _UNSAVED:
                raise InputError(f"{file} describes a model of {described:,} bytes and does not hold them.")
            ensemble = keras.saving.load_model(file, compile=False, safe_mode=True)
        if isinstance(ensemble, Ensemble):
            _check_interface(file, ensemble)
            _check_finite(file, ensemble)
            return ensemble
    except InputError:
        raise
    except Exception as error:  # Keras and h5py have no common class for what damage leads to
        raise InputError(f"{file} cannot be read; it is damaged or not an ensemble.") from error
    raise InputError(f"{file} holds a {type(ensemble).__name__}; a target is an ensemble of ncen_tf.")


def read_weights(ensemble: Ensemble, file: Path) -> None:
    """Give an ensemble the weights of one of the same architecture.

    Raises:
        InputError: a damaged file, or another architecture.
    """
    try:
        with _unpacked(file) as (_, weights):
            ensemble.load_weights(weights)
        _check_finite(file, ensemble)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{file} cannot be read; it is damaged or not the run's ensemble.") from error


@contextlib.contextmanager
def _unpacked(file: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """A file's configuration and its weights, checked."""
    check_zip(file)
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(file) as archive:
        config = parse_json(f"{file}: {_CONFIG}", archive.read(_CONFIG).decode())
        if any(kind in _class_names(config) for kind in _ARRAYS):
            raise InputError(f"{file} has arrays in its {_CONFIG}, which are not read: do not trust it.")
        weights = Path(archive.extract(_WEIGHTS, folder))
        _check_weights(file, weights)
        yield config, weights


def _class_names(config: object) -> Iterator[object]:
    if isinstance(config, dict):
        yield config.get("class_name")
    inside = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    for entry in inside:
        yield from _class_names(entry)


def _check_weights(file: Path, weights: Path) -> None:
    """Refuse tensors that are larger than the file that should hold them, or are in another file."""
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
        raise InputError(f"{file} says that it has {size:,} bytes of weights and does not hold them.")


def _described_bytes(config: dict[str, Any]) -> int:
    """Memory for the variables of a model, without taking it."""
    with keras.StatelessScope(initialize_variables=False):
        model = keras.saving.deserialize_keras_object(config | {"compile_config": None}, safe_mode=True)
    variables = model.variables if isinstance(model, keras.Model) else []
    return sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in variables)


def _check_interface(file: Path, ensemble: Ensemble) -> None:
    """Refuse members that do not take the same images or know the same classes."""
    interfaces = {(member.input_shape, member.output_shape) for member in ensemble.members}
    (images, logits), *others = interfaces or {((), ())}
    sizes = (*images[1:], *logits[1:])
    if others or (len(images), len(logits)) != (4, 2) or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise InputError(
            f"{file}: its members do not all take [N, H, W, C] and give [N, classes], or not the same."
        )


def _check_finite(file: Path, ensemble: Ensemble) -> None:
    """Refuse NaN and infinity: nothing that is computed with them means anything."""
    for index, member in enumerate(ensemble.members):
        if not all(np.isfinite(weight).all() for weight in member.get_weights()):
            raise InputError(f"{file}: the weights of member {index} hold NaN or infinity.")
