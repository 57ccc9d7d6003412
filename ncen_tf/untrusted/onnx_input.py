"""ONNX files as input: a stranger's, too, is read without reaching elsewhere or taking too much."""

import functools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from google.protobuf.message import Message

from ncen_tf.base.errors import InputError

MEMORY = 2**30
"""Bytes that a small model may take, weights and all, to answer two images."""
PIXELS = 2**24
"""Values that an image may have."""
NODES, CALLS = 100_000, 32
"""Nodes of a model with its functions written out, and functions that call each other in turn."""


def read_model(path: Path) -> onnx.ModelProto:
    """A classifier of images, tried on noise in little memory.

    Raises:
        InputError: no ONNX model, a damaged one, weights in other files, another input than images of one
            size in batches of any, or a file smaller than half of :data:`MEMORY` that does not run in it.
    """
    try:
        model = onnx.load(path, load_external_data=False)
        tensors = [message for message in _messages(model) if isinstance(message, onnx.TensorProto)]
        if any(tensor.external_data or tensor.data_location for tensor in tensors):
            raise InputError(
                f"{path} has weights in other files: make it a single file, as "
                "onnx.save(onnx.load(...), ...) does."
            )
        if _written_out(model) > NODES:
            raise InputError(f"{path} has more than {NODES} nodes or deeply nested functions.")
        onnx.checker.check_model(model)
    except InputError:
        raise
    except Exception as error:  # ONNX and protobuf have no common class for what damage leads to
        raise InputError(f"{path} is not an ONNX model, or is damaged.") from error
    image = image_input(path, model)
    if path.stat().st_size < MEMORY // 2:
        _try(path, model, image)
    return model


def open_session(
    model: bytes, providers: tuple[str, ...] = ("CPUExecutionProvider",), spinning: bool = True
) -> onnxruntime.InferenceSession:
    """An onnxruntime session on exactly these execution providers.

    Args:
        model: bytes of an ONNX model.
        providers: names of execution providers, the first preferred.
        spinning: let threads that wait for work keep their cores, which makes one session answer sooner,
            and everything beside it later: TensorFlow, other sessions.

    Raises:
        InputError: a provider that this installation lacks or that failed to start.
    """
    available = onnxruntime.get_available_providers()
    missing = [name for name in providers if name not in available]
    if missing:
        raise InputError(f"onnxruntime has no {missing[0]} here; it has {', '.join(available)}.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if hasattr(os, "sched_getaffinity"):
        # onnxruntime counts the machine's cores: on a share of them its threads would wait for one another.
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    session = onnxruntime.InferenceSession(model, options, providers=list(providers))
    # onnxruntime falls back to the CPU with no more than a log line.
    if session.get_providers()[: len(providers)] != list(providers):
        raise InputError(f"{providers[0]} did not start; onnxruntime chose {session.get_providers()[0]}.")
    return session


def noise(sizes: Sequence[int]) -> npt.NDArray[np.float32]:
    """Images [N, H, W, C] in [0, 1] to try a model on; the same ones for the same sizes."""
    return np.random.default_rng(0).random(sizes, np.float32)


def image_input(path: Path, model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The only input that is no weight.

    Raises:
        InputError: several inputs, or one that is no batch of images of a fixed size.
    """
    weights = {initializer.name for initializer in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise InputError(f"{path} has {len(inputs)} inputs; a classifier has one, the image.")
    sizes = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]
    if sizes and sizes[0]:
        raise InputError(f"{path} takes exactly {sizes[0]} images at a time: export it with a dynamic batch.")
    if len(sizes) != 4 or min(sizes[1:]) < 1:
        raise InputError(f"{path}: its input has shape {sizes}, not [N, H, W, C] with only N free.")
    if math.prod(sizes[1:]) > PIXELS:
        raise InputError(
            f"{path}: its images have {math.prod(sizes[1:]):,} values; at most {PIXELS:,} are read."
        )
    return inputs[0]


def _messages(message: Message) -> Iterator[Message]:
    """A message and all inside it."""
    yield message
    for _, value in message.ListFields():
        entries = [value] if isinstance(value, Message) else value
        if not isinstance(entries, str | bytes | int | float) and entries and isinstance(entries[0], Message):
            for entry in entries:
                yield from _messages(entry)


def _written_out(model: onnx.ModelProto) -> float:
    """Nodes of a model when every call of a function of its own is replaced by the function's nodes."""
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}

    @functools.cache
    def nodes(name: tuple[str, str, str], calls: int) -> float:
        return count(functions[name], calls) if calls < CALLS else math.inf

    def count(inside: Message, calls: int) -> float:
        called = [
            (m.domain, m.op_type, m.overload) for m in _messages(inside) if isinstance(m, onnx.NodeProto)
        ]
        return len(called) + sum(nodes(name, calls + 1) for name in called if name in functions)

    return count(model.graph, 0)


def _try(path: Path, model: onnx.ModelProto, image: onnx.ValueInfoProto) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Without optimizations: they compute what is constant beforehand, in memory that has no limit.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.use_env_allocators", "1")
    _limit_memory()
    tensor = image.type.tensor_type
    sizes = [2, *(dim.dim_value for dim in tensor.shape.dim[1:])]
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        session.run(None, {image.name: noise(sizes).astype(dtype)})
    except Exception as error:  # onnxruntime's errors have no public base class
        large = "Available memory" in str(error)
        reason = f"it takes more than {MEMORY:,} bytes" if large else str(error)[:300]
        raise InputError(f"{path} does not run on two images: {reason}.") from error


@functools.cache
def _limit_memory() -> None:
    """Of all sessions that use the process's common allocator; these are not those that attacks run."""
    information = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(information, onnxruntime.OrtArenaCfg({"max_mem": MEMORY}))
