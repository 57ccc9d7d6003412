"""The members in PyTorch: the same architecture, on the same devices, with the weights of Keras members."""

import math
import os
from collections.abc import Callable, Sequence

import keras
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

SLOPE = 0.1


def torch_device() -> torch.device:
    """Return the first GPU, or the CPU with as many threads as this process has cores."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    return torch.device("cpu")


def to_torch(values: npt.NDArray[np.generic], precision: str = "float32") -> torch.Tensor:
    """Copy an array to :func:`torch_device`; integers become int64, as PyTorch's losses need them."""
    kind = torch.int64 if np.issubdtype(values.dtype, np.integer) else getattr(torch, precision)
    return torch.tensor(values, dtype=kind, device=torch_device())


def nchw(images: npt.NDArray[np.float32]) -> torch.Tensor:
    """Copy images [N, H, W, C] to a tensor [N, C, H, W]."""
    return to_torch(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


class Block(torch.nn.Module):
    """Two 3x3 convolutions and a shortcut without weights (option A of He et al., 2016)."""

    def __init__(self, old: int, new: int) -> None:
        super().__init__()
        stride = 1 if old == new else 2
        self.conv1 = torch.nn.Conv2d(old, new, 3, stride, padding=1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(new)
        self.conv2 = torch.nn.Conv2d(new, new, 3, padding=1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(new)
        self.added = new - old

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.leaky_relu(self.bn1(self.conv1(x)), SLOPE)
        y = self.bn2(self.conv2(y))
        if self.added:
            before = self.added // 2
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, self.added - before))
        return functional.leaky_relu(x + y, SLOPE)


class TorchResNet(torch.nn.Module):
    """A CIFAR-style ResNet: images [N, C, H, W] in [0, 1] -> logits [N, classes].

    Args:
        depth: 6n+2.
        channels: Number of channels of the images.
        classes: Number of logits.
    """

    def __init__(self, depth: int, channels: int, classes: int = 10) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn = torch.nn.BatchNorm2d(16)
        widths = [width for width in (16, 32, 64) for _ in range((depth - 2) // 6)]
        pairs = zip([16, *widths], widths, strict=False)
        self.blocks = torch.nn.Sequential(*(Block(old, new) for old, new in pairs))
        self.fc = torch.nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.leaky_relu(self.bn(self.conv(x)), SLOPE)
        return self.fc(self.blocks(x).mean((2, 3)))


class TorchEnsemble(torch.nn.Module):
    """Images [N, C, H, W] in [0, 1] -> log of the members' mean probabilities, [N, classes]."""

    def __init__(self, members: Sequence[TorchResNet]) -> None:
        super().__init__()
        self.members = torch.nn.ModuleList(members)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logs = torch.stack([functional.log_softmax(member(x), 1) for member in self.members])
        return torch.logsumexp(logs, 0) - math.log(len(logs))


def copy_member(member: keras.Model) -> TorchResNet:
    """Copy a Keras member of :func:`ncen_tf.ensembles.resnet.build_resnet` to PyTorch.

    Raises:
        ValueError: The member has another architecture.
    """
    layers = [weight for layer in member.layers for weight in layer.get_weights()]
    convolutions = sum(weight.ndim == 4 for weight in layers)
    copy = TorchResNet(convolutions + 1, member.input_shape[-1], member.output_shape[-1])
    # Both list weights in the order of use, those of a normalisation as gamma, beta, mean, variance.
    tensors = [tensor for name, tensor in copy.state_dict().items() if "num_batches" not in name]
    orders = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    moved = [torch.tensor(weight.transpose(orders[weight.ndim])) for weight in layers]
    if [tensor.shape for tensor in tensors] != [weight.shape for weight in moved]:
        raise ValueError(
            f"{member.name} is not a ResNet{convolutions + 1} of ncen_tf: its weights have other shapes."
        )
    with torch.no_grad():
        for tensor, weight in zip(tensors, moved, strict=True):
            tensor.copy_(weight)
    return copy


def torch_predictor(
    members: Sequence[keras.Model],
) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """Make a function from images [N, H, W, C] to mean probabilities of copies [N, classes]."""
    ensemble = TorchEnsemble([copy_member(member) for member in members]).to(torch_device()).eval()

    def predict(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            found: npt.NDArray[np.float32] = ensemble(nchw(images)).exp().cpu().numpy()
        return found

    return predict
