"""Whether our training and PyTorch's compute the same, which comes before any comparison of their speed."""

from collections.abc import Sequence

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from benchmarks.peers.devices import nchw, to_torch, torch_device
from benchmarks.peers.torch_resnet import copy_member
from benchmarks.peers.torch_training import TorchTraining
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.ensembles.regularizers import NCE

TOLERANCE = 1e-3


def losses_of_both(
    members: Sequence[keras.Model], nce: NCE, images: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]
) -> tuple[dict[str, float], dict[str, float]]:
    """Batch means of ``loss``, ``ce``, ``l_cos`` and ``l_norm`` in training mode: ours, and PyTorch's.

    Args:
        members: of :func:`ncen_tf.ensembles.resnet.build_resnet`; PyTorch gets their weights.
        nce: the penalty.
        images: [N, H, W, C] in [0, 1].
        labels: [N].
    """
    copies = [copy_member(member).to(torch_device()) for member in members]
    theirs = TorchTraining(copies, nce).losses(nchw(images), to_torch(labels))
    ensemble = Ensemble(members)
    ensemble.compile(regularizer=nce)
    views = [tf.constant(images)] * len(members)
    losses, parts, _ = ensemble.losses_per_example(views, tf.constant(labels), training=True)
    ours = {name: float(np.mean(values)) for name, values in ({"loss": losses} | parts).items()}
    return ours, {name: float(value.detach()) for name, value in theirs.items()}


def check_agreement(
    members: Sequence[keras.Model], images: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]
) -> None:
    """Stop a benchmark of sides that differ.

    Raises:
        RuntimeError: another number of trainable parameters, or another loss.
    """
    here = sum(int(np.prod(v.shape)) for member in members for v in member.trainable_variables)
    there = sum(p.numel() for member in members for p in copy_member(member).parameters())
    if here != there:
        raise RuntimeError(f"Our members have {here} trainable parameters, PyTorch's {there}.")
    ours, theirs = losses_of_both(members, NCE(), images, labels)
    for name, value in ours.items():
        if not abs(value - theirs[name]) < TOLERANCE:
            raise RuntimeError(f"With the same weights {name} is {value} here and {theirs[name]} in PyTorch.")
