"""Ways to take the gradient of an ONNX file by its image: this package's, and those of others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from ncen_tf.onnx_grad import gradient_model, split_gradient_model

Array = NDArray[Any]
# (images, cotangent of the output) -> gradient by the images
Gradient = Callable[[Array, Array], Array]


def _session(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, threads
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def with_ncen_tf(path: Path, batch: int, threads: int) -> Gradient:
    """One graph, which computes the output and the gradient in one call."""
    session = _session(gradient_model(onnx.load(path)), threads)
    image, cotangent = (value.name for value in session.get_inputs())
    return lambda x, v: np.asarray(session.run(None, {image: x, cotangent: v})[-1])


def with_ncen_tf_split(path: Path, batch: int, threads: int) -> Gradient:
    """A forward and a backward graph, for a cotangent that depends on the output."""
    model = onnx.load(path)
    parts = split_gradient_model(gradient_model(model), model.graph.output[0].name)
    forward, backward = (_session(part, threads) for part in parts)
    names = [value.name for value in backward.get_inputs()]

    def gradient(x: Array, v: Array) -> Array:
        _, *kept = forward.run(None, {forward.get_inputs()[0].name: x})
        return np.asarray(backward.run(None, dict(zip(names, [*kept, v], strict=True)))[0])

    return gradient


def with_onnx_ad(path: Path, batch: int, threads: int) -> Gradient:
    """A graph in onnxruntime as well; the batch is made static, which its rules profit from."""
    from onnx_ad import reverse

    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    image = model.graph.input[0].name
    del model.graph.value_info[:]
    session = _session(reverse(onnx.shape_inference.infer_shapes(model), layout="onnx"), threads)
    seed = session.get_inputs()[-1].name
    name = session.get_outputs()[-1].name
    return lambda x, v: np.asarray(session.run([name], {image: x, seed: v[..., None]})[0][..., 0])


def with_onnx2torch(path: Path, batch: int, threads: int) -> Gradient:
    import onnx2torch

    return in_torch(onnx2torch.convert(onnx.load(path)))


def with_onnx2pytorch(path: Path, batch: int, threads: int) -> Gradient:
    import onnx2pytorch

    return in_torch(onnx2pytorch.ConvertModel(onnx.load(path), experimental=True))


def in_torch(module: torch.nn.Module) -> Gradient:
    """Differentiate a module by its input with eager autograd."""
    module = module.eval().requires_grad_(False)

    def gradient(x: Array, v: Array) -> Array:
        images = torch.from_numpy(x).requires_grad_(True)
        (found,) = torch.autograd.grad(module(images), images, torch.from_numpy(v))
        return np.asarray(found.numpy())

    return gradient


SIDES: dict[str, Callable[[Path, int, int], Gradient]] = {
    "ncen_tf": with_ncen_tf,
    "ncen_tf, split": with_ncen_tf_split,
    "onnx-ad": with_onnx_ad,
    "onnx2torch": with_onnx2torch,
    "onnx2pytorch": with_onnx2pytorch,
}
