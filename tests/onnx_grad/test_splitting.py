"""The two halves of a gradient model do what it does, and share no work."""

import numpy as np
import onnx
import onnxruntime
import pytest

from ncen_tf.onnx_grad import gradient_model, split_gradient_model
from tests.onnx_grad.test_gradient_model import Array, build, node

RNG = np.random.default_rng(0)
WEIGHTS = {"w": RNG.normal(size=(3, 2, 3, 3)).astype(np.float32)}
CONVOLUTIONS = [
    node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
    node("LeakyRelu", "a", "b", alpha=0.1),
    node("Sigmoid", "b", "c"),
    node("Mul", "b c", "y"),
]


def run(model: onnx.ModelProto, *feeds: Array) -> list[Array]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return list(session.run(None, dict(zip(names, feeds, strict=True))))


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        (CONVOLUTIONS, WEIGHTS),
        ([node("Mul", "x x", "y")], {}),  # the image itself is kept
        ([node("Neg", "x", "y")], {}),  # nothing is kept
    ],
)
def test_both_halves_do_what_the_whole_does(nodes: list[onnx.NodeProto], constants: dict[str, Array]) -> None:
    model = build(nodes, constants, element=onnx.TensorProto.FLOAT)
    whole = gradient_model(model)
    forward, backward = split_gradient_model(whole, "y")
    x, v = (
        RNG.normal(size=(5, channels, 4, 4)).astype(np.float32) for channels in (2, 3 if constants else 2)
    )
    y, gradient = run(whole, x, v)
    split_y, *kept = run(forward, x)
    (split_gradient,) = run(backward, *kept, v)
    np.testing.assert_array_equal(split_y, y)
    np.testing.assert_array_equal(split_gradient, gradient)


def test_no_operation_is_in_both_halves() -> None:
    whole = gradient_model(build(CONVOLUTIONS, WEIGHTS, element=onnx.TensorProto.FLOAT))
    forward, backward = split_gradient_model(whole, "y")
    assert len(forward.graph.node) + len(backward.graph.node) == len(whole.graph.node)
    original = [n.op_type for n in forward.graph.node if n.output[0] in "abcy"]
    assert original == ["Conv", "LeakyRelu", "Sigmoid", "Mul"]
    assert not {"a", "b", "c", "y"} & {name for n in backward.graph.node for name in n.output}
    assert [value.name for value in forward.graph.input] == ["x"]
    assert forward.graph.output[0].name == "y"
    assert "w" in {tensor.name for tensor in forward.graph.initializer}
