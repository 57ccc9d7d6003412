"""Read ONNX files from other people, and open sessions on them in onnxruntime."""

import functools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
import onnxruntime
from google.protobuf.message import Message

from ncen_tf.base.errors import InputError
from ncen_tf.untrusted.memory import MEMORY

MAX_VALUES = 2**24
"""Values that one image may have."""
MAX_NODES, MAX_CALL_DEPTH = 100_000, 32
"""Nodes of a model with its functions inlined, and depth of functions that call each other."""
_NUMBERS = {
    getattr(onnx.TensorProto, name)
    for name in ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "UINT8", "INT8", "INT32", "INT64")
}
_LARGEST = 2**31
"""Bytes that a message of protobuf may have."""


def read_model(path: Path) -> onnx.ModelProto:
    """Read a model with all its weights, and check it; :func:`run_limited` then tries it.

    Inputs that the file lists and that are weights or are never read, as files of IR version 3 and of
    tf2onnx have them, are no inputs of the model that is returned.

    Raises:
        InputError: The file is not an ONNX model or damaged, or its weights are not in its folder.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # ONNX and protobuf have no common base class of errors.
        raise InputError(f"{path} is not an ONNX model, or is damaged: {str(error)[:300]}.") from error
    if _inlined_nodes(model) > MAX_NODES:
        raise InputError(f"{path} has more than {MAX_NODES} nodes, or deeply nested functions.")
    _load_weights(path, model)
    _remove_needless_inputs(model)
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        reason = str(error).split("\n\n==> Context")[0]
        raise InputError(f"{path} is not a valid ONNX model: {reason[:300]}.") from error
    return model


def image_input(path: Path, model: onnx.ModelProto) -> tuple[onnx.ValueInfoProto, list[int | None]]:
    """Return the only input of a model that :func:`read_model` read, and its sizes, ``None`` for free ones.

    Sizes of the input that are written as 0 or -1 are made free.

    Raises:
        InputError: There are several inputs, or the input is no tensor, or too large.
    """
    inputs = model.graph.input
    if len(inputs) != 1:
        names = f" ({', '.join(value.name for value in inputs)})" if inputs else ""
        raise InputError(f"{path} has {len(inputs)} inputs{names}; a classifier has one, the image.")
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type not in _NUMBERS:
        kinds = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
        kind = kinds.get(tensor.elem_type, "something else")
        raise InputError(f"{path} takes {kind}, not numbers; a classifier takes images.")
    for dim in tensor.shape.dim:
        if dim.dim_value <= 0 and not dim.dim_param:  # some exporters write a free size as 0 or -1
            dim.Clear()
    sizes = [dim.dim_value or None for dim in tensor.shape.dim]
    if len(sizes) < 2:
        raise InputError(f"{path}: its input {inputs[0].name} is not a batch of images.")
    values = math.prod(size or 1 for size in sizes)
    if values > MAX_VALUES:
        raise InputError(f"{path}: its images have {values:,} values; at most {MAX_VALUES:,} are accepted.")
    return inputs[0], sizes


def weight_files(path: Path) -> list[Path]:
    """List the other files that hold weights of a model, sorted.

    Raises:
        InputError: One of them is not a file in the model's folder.
    """
    tensors = _external_tensors(onnx.load(path, load_external_data=False))
    return sorted({_weight_file(path, tensor) for tensor in tensors})


def run_limited(
    path: Path, model: onnx.ModelProto, inputs: Sequence[dict[str, npt.NDArray[Any]]]
) -> list[dict[str, npt.NDArray[Any]]]:
    """Run a model, unoptimized, on a few inputs: in little memory, if its file is smaller than half of that.

    Args:
        path: The file, for the error message.
        model: The model.
        inputs: What it is given, by the names of its inputs, one run after the other.

    Returns:
        Of each run the outputs by name.

    Raises:
        InputError: It does not run, or takes more than :data:`MEMORY`.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Optimizations would compute what is constant beforehand, in memory that has no limit.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    size = path.stat().st_size + sum(file.stat().st_size for file in weight_files(path))
    if size < MEMORY // 2:
        options.add_session_config_entry("session.use_env_allocators", "1")
        _limit_memory()
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        names = [output.name for output in session.get_outputs()]
        return [dict(zip(names, session.run(names, values), strict=True)) for values in inputs]
    except Exception as error:  # The errors of onnxruntime have no public base class.
        large = "Available memory" in str(error)
        reason = f"it takes more than {MEMORY:,} bytes" if large else " ".join(str(error).split())[-300:]
        raise InputError(f"{path} does not run on two images: {reason}.") from error


def open_session(
    model: bytes, providers: tuple[str, ...] = ("CPUExecutionProvider",), spinning: bool = True
) -> onnxruntime.InferenceSession:
    """Open an onnxruntime session on exactly these execution providers.

    Args:
        model: Bytes of an ONNX model.
        providers: Names of execution providers, the preferred one first.
        spinning: Let threads that wait for work keep their cores. One session then answers sooner, and
            everything that runs beside it, such as TensorFlow or another session, later.

    Raises:
        InputError: A provider is not installed or did not start.
    """
    available = onnxruntime.get_available_providers()
    missing = [name for name in providers if name not in available]
    if missing:
        raise InputError(f"onnxruntime has no {missing[0]} here; it has {', '.join(available)}.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    if hasattr(os, "sched_getaffinity"):
        # onnxruntime counts the cores of the machine, and its threads wait for one another on fewer.
        cores, wanted = len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS", "")
        options.intra_op_num_threads = min(cores, int(wanted) or cores) if wanted.isdigit() else cores
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    session = onnxruntime.InferenceSession(model, options, providers=list(providers))
    session._model_bytes = None  # as large as the weights, and kept only to start with other providers
    # onnxruntime falls back to the CPU with no more than a log line.
    if session.get_providers()[: len(providers)] != list(providers):
        raise InputError(f"{providers[0]} did not start; onnxruntime chose {session.get_providers()[0]}.")
    return session


def _messages(message: Message) -> Iterator[Message]:
    """Iterate over a message and all messages inside it."""
    yield message
    for _, value in message.ListFields():
        entries = [value] if isinstance(value, Message) else value
        if not isinstance(entries, str | bytes | int | float) and entries and isinstance(entries[0], Message):
            for entry in entries:
                yield from _messages(entry)


def _inlined_nodes(model: onnx.ModelProto) -> float:
    """Count the nodes of a model after every call of a local function is replaced by the function's nodes."""
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}

    @functools.cache
    def nodes(name: tuple[str, str, str], depth: int) -> float:
        return count(functions[name], depth) if depth < MAX_CALL_DEPTH else math.inf

    def count(inside: Message, depth: int) -> float:
        called = [
            (m.domain, m.op_type, m.overload) for m in _messages(inside) if isinstance(m, onnx.NodeProto)
        ]
        return len(called) + sum(nodes(name, depth + 1) for name in called if name in functions)

    return count(model.graph, 0)


def _remove_needless_inputs(model: onnx.ModelProto) -> None:
    """Make weights that are listed among the inputs constants, and remove inputs that nothing reads."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    weights |= {tensor.values.name for tensor in graph.sparse_initializer}
    read = {
        name for message in _messages(graph) if isinstance(message, onnx.NodeProto) for name in message.input
    }
    read.update(value.name for value in graph.output)
    inputs = [value for value in graph.input if value.name not in weights and value.name in read]
    if len(inputs) < len(graph.input):
        del graph.input[:]
        graph.input.extend(inputs)
        model.ir_version = max(model.ir_version, 4)


def _external_tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    tensors = [message for message in _messages(model) if isinstance(message, onnx.TensorProto)]
    return [tensor for tensor in tensors if tensor.external_data or tensor.data_location]


def _weight_file(path: Path, tensor: onnx.TensorProto) -> Path:
    """Return the file that holds a tensor, which must lie in the model's folder, links followed."""
    location = {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
    file = path.parent / location
    try:
        inside, found = file.resolve().is_relative_to(path.parent.resolve()), file.is_file()
    except (OSError, ValueError):  # a name that no file can have
        inside, found = True, False
    if not inside:
        raise InputError(f"{path} has weights in {location!r}, outside its folder: do not trust it.")
    if not found:
        raise InputError(f"{path} has weights in {location!r}, which is missing: keep both in one folder.")
    return file


def _load_weights(path: Path, model: onnx.ModelProto) -> None:
    """Read weights that are in other files into the model."""
    tensors = _external_tensors(model)
    files = {file: file.stat().st_size for file in {_weight_file(path, tensor) for tensor in tensors}}
    if path.stat().st_size + sum(files.values()) >= _LARGEST:
        raise InputError(f"{path} and its weights are larger than 2 GB, which ONNX cannot hold in one model.")
    total = 0
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        file = _weight_file(path, tensor)
        try:
            start = int(entries.get("offset", 0))
            length = int(entries.get("length", files[file] - start))
        except ValueError as error:
            raise InputError(f"{path}: the place of the weights {tensor.name} is not a number.") from error
        total += length
        if start < 0 or length < 0 or start + length > files[file] or total > sum(files.values()):
            raise InputError(f"{path}: {file.name} does not hold all the weights {tensor.name}.")
        with file.open("rb") as stored:
            stored.seek(start)
            tensor.raw_data = stored.read(length)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


@functools.cache
def _limit_memory() -> None:
    """Limit the allocator that sessions share on request; sessions of :func:`open_session` do not."""
    information = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(information, onnxruntime.OrtArenaCfg({"max_mem": MEMORY}))
