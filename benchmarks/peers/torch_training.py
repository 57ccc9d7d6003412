"""A training step in PyTorch, member by member as in the paper's released code, compared with ours."""

from collections.abc import Sequence

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
import torch
from torch.nn import functional

from benchmarks.peers.torch_resnet import copy_member, nchw, to_torch, torch_device
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.ensembles.losses import losses_per_example
from ncen_tf.ensembles.regularizers import NCE

TOLERANCE = 1e-3


class TorchTraining:
    """Members with an Adam each, trained on cross-entropy and, if asked, NCE (Luo et al., Eq. 5 and 10).

    Args:
        members: Models of images [N, C, H, W] -> logits [N, classes].
        nce: Coefficients, in the paper's form; ``None`` trains on cross-entropy only.
        bfloat16: Whether forward passes run under autocast.
    """

    def __init__(self, members: Sequence[torch.nn.Module], nce: NCE | None, bfloat16: bool = False) -> None:
        self.members = [member.train() for member in members]
        self.nce = nce
        self._bfloat16 = bfloat16
        self._optimizers = [torch.optim.Adam(member.parameters(), lr=1e-3) for member in members]

    def losses(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the batch means ``loss``, ``ce`` and, with NCE, ``l_cos`` and ``l_norm``."""
        images = images.detach().requires_grad_(self.nce is not None)
        entropies, gradients = [], []
        for member in self.members:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self._bfloat16):
                logits = member(images)
            entropy = functional.cross_entropy(logits.float(), labels, reduction="none")
            entropies.append(entropy)
            if self.nce is not None:
                (gradient,) = torch.autograd.grad(entropy.sum(), images, create_graph=True)
                gradients.append(gradient.flatten(1))
        ce = torch.stack(entropies).mean()
        if self.nce is None:
            return {"loss": ce, "ce": ce}
        cos, norm = l_cos(torch.stack(gradients, 1)).mean(), l_norm(torch.stack(gradients, 1)).mean()
        loss = ce + self.nce.lambda_cos * cos + self.nce.lambda_norm * norm
        return {"loss": loss, "ce": ce, "l_cos": cos, "l_norm": norm}

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Update all members once, and return the loss before."""
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss = self.losses(images, labels)["loss"]
        loss.backward()
        for optimizer in self._optimizers:
            optimizer.step()
        return loss.detach()


def l_cos(gradients: torch.Tensor) -> torch.Tensor:
    """Compute c_i * sum over j != i of c_j, c_i the cosine with the mean (Eq. 1, 2): [N, k, D] -> [N, k]."""
    cosines = functional.cosine_similarity(gradients, gradients.mean(1, keepdim=True), dim=2)
    return cosines * (cosines.sum(1, keepdim=True) - cosines)


def l_norm(gradients: torch.Tensor) -> torch.Tensor:
    """Compute d_i * sum over j != i of d_j, d_i being |g_i| / mean - 1 (Eq. 6 and 7). [N, k, D] -> [N, k]."""
    norms = gradients.norm(dim=2)
    deviations = norms / norms.mean(1, keepdim=True) - 1
    return deviations * (deviations.sum(1, keepdim=True) - deviations)


def losses_of_both(
    members: Sequence[keras.Model], nce: NCE, images: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]
) -> tuple[dict[str, float], dict[str, float]]:
    """Compute the batch means of loss and terms in training mode, here and in PyTorch with the same weights.

    Args:
        members: Models of :func:`ncen_tf.ensembles.resnet.build_resnet`.
        nce: Regularizer.
        images: float32 [N, H, W, C] in [0, 1].
        labels: int32 [N].
    """
    copies = [copy_member(member).to(torch_device()) for member in members]
    theirs = TorchTraining(copies, nce).losses(nchw(images), to_torch(labels))
    ensemble = Ensemble(members)
    ensemble.compile(regularizer=nce)
    views = [tf.constant(images)] * len(members)
    losses, parts, _ = losses_per_example(ensemble, views, tf.constant(labels), training=True)
    ours = {name: float(np.mean(values)) for name, values in ({"loss": losses} | parts).items()}
    return ours, {name: float(value.detach()) for name, value in theirs.items()}


def check_agreement(
    members: Sequence[keras.Model], images: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]
) -> None:
    """Check that both sides compute the same.

    Raises:
        RuntimeError: The number of trainable parameters or a loss differs.
    """
    here = sum(int(np.prod(v.shape)) for member in members for v in member.trainable_variables)
    there = sum(p.numel() for member in members for p in copy_member(member).parameters())
    if here != there:
        raise RuntimeError(f"Our members have {here} trainable parameters, PyTorch's {there}.")
    ours, theirs = losses_of_both(members, NCE(), images, labels)
    for name, value in ours.items():
        if not abs(value - theirs[name]) < TOLERANCE:
            raise RuntimeError(f"With the same weights {name} is {value} here and {theirs[name]} in PyTorch.")
