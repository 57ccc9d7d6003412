"""The table of differentiation rules: one per ONNX operator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from ncen_tf.onnx_grad.builder import GraphBuilder


class UnsupportedOpError(ValueError):
    """Operators on the path from image to output that cannot be differentiated."""

    def __init__(self, nodes: onnx.NodeProto | Sequence[onnx.NodeProto], reason: str) -> None:
        nodes = [nodes] if isinstance(nodes, onnx.NodeProto) else nodes
        names = ", ".join(
            f"{node.domain}.{node.op_type}"[not node.domain :] + f" (node {node.name or node.output[0]!r})"
            for node in nodes
        )
        super().__init__(f"ONNX operator {names} {reason}")


@dataclass(frozen=True)
class Node:
    """A node to differentiate.

    `inputs` and `outputs` are tensor names ("" for an omitted one), `active[i]` tells whether input i
    depends on the image, and `cotangents[i]` is the cotangent of output i, None if that output does not
    influence the differentiated output.
    """

    proto: onnx.NodeProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    active: tuple[bool, ...]
    cotangents: tuple[str | None, ...]

    @property
    def op_type(self) -> str:
        return str(self.proto.op_type)

    def input(self, index: int) -> str:
        """Return the name of input `index`, "" if the node omits it."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def unsupported(self, reason: str) -> UnsupportedOpError:
        return UnsupportedOpError(self.proto, reason)


# (builder, node, cotangent of output 0) -> cotangent of each input; None, or a shorter list, for none.
RuleFunction = Callable[[GraphBuilder, Node, str], Sequence[str | None]]


@dataclass(frozen=True)
class Rule:
    function: RuleFunction
    inputs: tuple[int, ...] | None
    every_output: bool
    straight_through: bool

    def __call__(self, builder: GraphBuilder, node: Node) -> Sequence[str | None]:
        """Return the cotangents of the node's inputs.

        Raises:
            UnsupportedOpError: the image reaches an input, or the gradient an output, that the rule does
                not cover.
        """
        covered = range(len(node.inputs)) if self.inputs is None else self.inputs
        for index, active in enumerate(node.active):
            if active and index not in covered:
                raise node.unsupported(f"has no gradient for input {index}, which depends on the image")
        if self.every_output:
            return self.function(builder, node, "")
        first, *others = node.cotangents
        if first is None or any(other is not None for other in others):
            raise node.unsupported("has no gradient for its outputs after the first")
        return self.function(builder, node, first)


_RULES: dict[str, Rule] = {}


def rule(
    *op_types: str,
    inputs: tuple[int, ...] | None = (0,),
    every_output: bool = False,
    straight_through: bool = False,
) -> Callable[[RuleFunction], RuleFunction]:
    """Register the decorated function as the rule of one or more ONNX operators.

    Args:
        op_types: operator names in the default ONNX domain.
        inputs: positions of the inputs the rule differentiates; None for all of them. An image
            dependence through any other input is refused.
        every_output: the rule reads `node.cotangents`; otherwise it gets the first output's cotangent
            and an image gradient through any other output is refused.
        straight_through: the gradient is not the operator's own, but that of the operator without rounding;
            it is used only when the caller asks for it.

    Raises:
        ValueError: an operator already has a rule.
    """

    def register(function: RuleFunction) -> RuleFunction:
        for op_type in op_types:
            if op_type in _RULES:
                raise ValueError(f"ONNX operator {op_type} already has a rule")
            _RULES[op_type] = Rule(function, inputs, every_output, straight_through)
        return function

    return register


def find_rule(node: onnx.NodeProto) -> Rule | None:
    """Return the rule for a node, None if there is none."""
    return _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None


def supported_ops() -> tuple[str, ...]:
    """Return the names of the operators that have a rule, sorted."""
    return tuple(sorted(_RULES))
