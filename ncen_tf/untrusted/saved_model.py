"""Load SavedModels from other people, after a check of the operations in their graphs."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2, node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import without_patterns

_PROGRAM = "saved_model.pb"
_ALLOWED_WITH_STATE = {
    *("VarHandleOp", "ReadVariableOp", "AssignVariableOp", "DisableCopyOnRead", "ResourceGather"),
    *("VariableShape", "StatefulPartitionedCall", "If", "While", "Case", "Assert"),
}
"""The only operations with state or effects that are accepted: a classifier has these."""
_REFUSED = re.compile(
    "Barrier|BatchFunction|Checkpoint|Dataset|Debug|File|FuncAttr|FuncListAttr|ImmutableConst|Py|Reader|Recv|"
    "Remote|Restore|Save|Send|Shard|Summary|TPU|Table|Xla"
)
"""Parts of names of operations that TensorFlow calls stateless but that reach files, code or devices."""


def load_saved_model(folder: Path) -> Any:
    """Load a SavedModel that can run no code and read no files but its own.

    Raises:
        InputError: The SavedModel is damaged, was written by TensorFlow 1, needs asset files, or has an
            operation that no classifier needs; the operation is named.
    """
    try:
        _check_program(folder)
        with without_patterns(folder) as path:
            return tf.saved_model.load(str(path))
    except InputError:
        raise
    except Exception as error:  # TensorFlow has no common base class of errors.
        raise InputError(f"{folder} cannot be loaded: {str(error)[:300]}.") from error


def _check_program(folder: Path) -> None:
    if (folder / _PROGRAM).with_suffix(".cpb").exists():
        raise InputError(f"{folder} has a second program, saved_model.cpb, which is not checked: remove it.")
    for graph in saved_model_pb2.SavedModel.FromString((folder / _PROGRAM).read_bytes()).meta_graphs:
        if graph.asset_file_def:
            raise InputError(f"{folder} needs asset files, which are not read.")
        if not graph.object_graph_def.concrete_functions:
            raise InputError(f"{folder} has no functions: it was not written by TensorFlow 2.")
        for operation in sorted(_operations(graph.graph_def, graph.object_graph_def.concrete_functions)):
            definition = op_def_registry.get(operation)
            if definition is None:
                raise InputError(
                    f"{folder} uses the operation {operation}, which this TensorFlow does not have: "
                    "import the library that registers it before."
                )
            stateful = definition.is_stateful and operation not in _ALLOWED_WITH_STATE
            if stateful or _REFUSED.search(operation):
                raise InputError(
                    f"{folder} uses the operation {operation}, which is not accepted in models: it has state "
                    "or reaches files, code or devices."
                )


def _operations(graph: graph_pb2.GraphDef, called: Iterable[str]) -> set[str]:
    """Find the operations of all functions that loading, running and differentiating a model may call.

    Functions that save and restore variables are not among them: TensorFlow 2 does that without the graph.
    """
    functions = {function.signature.name: function for function in graph.library.function}
    pending = [*called, *(gradient.gradient_func for gradient in graph.library.gradient)]
    pending += [gradient.gradient_func for gradient in graph.library.registered_gradients]
    seen: set[str] = set()
    operations: set[str] = set()
    while pending:
        name = pending.pop()
        if name in functions and name not in seen:
            seen.add(name)
            for node in functions[name].node_def:
                operations.add(node.op)
                pending += _called_by(node)
    return operations.difference(functions)


def _called_by(node: node_def_pb2.NodeDef) -> list[str]:
    """List the functions that a node may call."""
    listed = [function for value in node.attr.values() for function in value.list.func]
    named = [value.func for value in node.attr.values() if value.HasField("func")]
    return [node.op, *(function.name for function in (*named, *listed))]
