"""Read ONNX files from other people, and open sessions on them in onnxruntime."""

import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnxruntime
from google.protobuf.message import Message

from ncen_tf.base.errors import InputError
from ncen_tf.untrusted.memory import MEMORY, noise

MAX_VALUES = 2**24
"""Values that one image may have."""
MAX_NODES, MAX_CALL_DEPTH = 100_000, 32
"""Nodes of a model with its functions inlined, and depth of functions that call each other."""


def read_model(path: Path) -> onnx.ModelProto:
    """Read a classifier of images, check it, and try it on two images in little memory.

    Weights that the file also lists among the inputs, as files of IR version 3 do, are no inputs of the
    model that is returned.

    Raises:
        InputError: The file is not an ONNX model or damaged, has its weights in other files, has another
            input than a batch of images of one size, or is smaller than half of :data:`MEMORY` and does not
            run in it.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # ONNX and protobuf have no common base class of errors.
        raise InputError(f"{path} is not an ONNX model, or is damaged: {str(error)[:300]}.") from error
    tensors = [message for message in _messages(model) if isinstance(message, onnx.TensorProto)]
    if any(tensor.external_data or tensor.data_location for tensor in tensors):
        raise InputError(
            f"{path} has its weights in other files: make it one file with onnx.save(onnx.load(...), ...)."
        )
    if _inlined_nodes(model) > MAX_NODES:
        raise InputError(f"{path} has more than {MAX_NODES} nodes, or deeply nested functions.")
    _remove_weights_from_inputs(model)
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        reason = str(error).split("\n\n==> Context")[0]
        raise InputError(f"{path} is not a valid ONNX model: {reason[:300]}.") from error
    image = image_input(path, model)
    if path.stat().st_size < MEMORY // 2:
        _try(path, model, image)
    return model


def image_input(path: Path, model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """Return the only input of a model that :func:`read_model` read.

    Raises:
        InputError: There are several inputs, or the input is not a batch of images of a fixed size.
    """
    inputs = model.graph.input
    if len(inputs) != 1:
        raise InputError(f"{path} has {len(inputs)} inputs; a classifier has one, the image.")
    sizes = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]
    if sizes and sizes[0]:
        raise InputError(f"{path} takes exactly {sizes[0]} images at a time: export it with a dynamic batch.")
    if len(sizes) != 4 or min(sizes[1:]) < 1:
        raise InputError(f"{path}: its input has shape {sizes}, not [N, H, W, C] with only N free.")
    if math.prod(sizes[1:]) > MAX_VALUES:
        raise InputError(
            f"{path}: its images have {math.prod(sizes[1:]):,} values; at most {MAX_VALUES:,} are accepted."
        )
    return inputs[0]


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
    options.log_severity_level = 3
    if hasattr(os, "sched_getaffinity"):
        # onnxruntime counts the cores of the machine, and its threads wait for one another on fewer.
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    session = onnxruntime.InferenceSession(model, options, providers=list(providers))
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


def _remove_weights_from_inputs(model: onnx.ModelProto) -> None:
    """Make weights that are listed among the inputs constants, which IR version 4 and later allow."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    weights |= {tensor.values.name for tensor in graph.sparse_initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) < len(graph.input):
        del graph.input[:]
        graph.input.extend(inputs)
        model.ir_version = max(model.ir_version, 4)


def _try(path: Path, model: onnx.ModelProto, image: onnx.ValueInfoProto) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Optimizations would compute what is constant beforehand, in memory that has no limit.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.use_env_allocators", "1")
    _limit_memory()
    tensor = image.type.tensor_type
    shape = [2, *(dim.dim_value for dim in tensor.shape.dim[1:])]
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        session.run(None, {image.name: noise(shape).astype(dtype)})
    except Exception as error:  # The errors of onnxruntime have no public base class.
        large = "Available memory" in str(error)
        reason = f"it takes more than {MEMORY:,} bytes" if large else " ".join(str(error).split())[-300:]
        raise InputError(f"{path} does not run on two images: {reason}.") from error


@functools.cache
def _limit_memory() -> None:
    """Limit the allocator that sessions share on request; sessions of :func:`open_session` do not."""
    information = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(information, onnxruntime.OrtArenaCfg({"max_mem": MEMORY}))
