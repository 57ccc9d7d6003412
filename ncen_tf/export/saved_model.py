"""Export to a SavedModel that plain TensorFlow serves, and SavedModels as input."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2, node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from ncen_tf.base.errors import InputError
from ncen_tf.export.serving import serving_function
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.train.checkpoint_index import check_index

_PROGRAM = "saved_model.pb"
_WITH_STATE = {
    *("VarHandleOp", "ReadVariableOp", "AssignVariableOp", "DisableCopyOnRead", "ResourceGather"),
    *("VariableShape", "StatefulPartitionedCall", "If", "While", "Case", "Assert"),
}
"""The operations with state or effects that a classifier has."""
_REACHING = re.compile(
    "Barrier|BatchFunction|Checkpoint|Dataset|Debug|File|FuncAttr|FuncListAttr|ImmutableConst|Py|Reader|Recv|"
    "Remote|Restore|Save|Send|Shard|Summary|TPU|Table|Xla"
)
"""In the names of operations that count as free of effects and reach for files, code or devices."""


def save_saved_model(ensemble: Ensemble, image_shape: tuple[int, int, int], folder: Path) -> None:
    """Write a SavedModel with the signature ``serving_default``; loading it does not need this package."""
    module = tf.Module()
    module.weights = [variable.value for variable in ensemble.variables]
    serve = serving_function(ensemble, image_shape)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})


def load_saved_model(folder: Path) -> Any:
    """A SavedModel as TensorFlow loads it; a stranger's, too, touches no files but its own.

    Raises:
        InputError: a damaged SavedModel, or operations that no classifier needs.
    """
    try:
        _check_program(folder)
        check_index(folder / "variables" / "variables")
        return tf.saved_model.load(str(folder))
    except InputError:
        raise
    except Exception as error:  # TensorFlow has no common class for what damage leads to
        raise InputError(f"{folder} cannot be loaded: {str(error)[:200]}.") from error


def _check_program(folder: Path) -> None:
    if (folder / _PROGRAM).with_suffix(".cpb").exists():
        raise InputError(f"{folder} holds a second program, which TensorFlow would prefer: do not trust it.")
    for graph in saved_model_pb2.SavedModel.FromString((folder / _PROGRAM).read_bytes()).meta_graphs:
        if graph.asset_file_def:
            raise InputError(f"{folder} needs files beside the weights, which are not read.")
        if not graph.object_graph_def.concrete_functions:
            raise InputError(f"{folder} has no functions: it was written by TensorFlow 1, or by nothing.")
        for operation in sorted(_operations(graph.graph_def, graph.object_graph_def.concrete_functions)):
            definition = op_def_registry.get(operation)
            if definition is None or _REACHING.search(operation):
                needed = False
            else:
                needed = operation in _WITH_STATE or not definition.is_stateful
            if not needed:
                raise InputError(f"{folder} uses the operation {operation}, which no classifier needs.")


def _operations(graph: graph_pb2.GraphDef, called: Iterable[str]) -> set[str]:
    """Of all functions that loading, asking and differentiating a model may run.

    Those that save and restore variables are not among them: TensorFlow 2 does that without the graph.
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
                pending += _referred(node)
    return operations.difference(functions)


def _referred(node: node_def_pb2.NodeDef) -> list[str]:
    """Functions that a node may call."""
    listed = [function for value in node.attr.values() for function in value.list.func]
    named = [value.func for value in node.attr.values() if value.HasField("func")]
    return [node.op, *(function.name for function in (*named, *listed))]
