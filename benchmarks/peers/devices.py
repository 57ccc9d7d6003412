"""PyTorch on the devices that TensorFlow has."""

import os

import numpy as np
import numpy.typing as npt
import torch


def torch_device() -> torch.device:
    """The first GPU, or the CPU with as many threads as this process has cores, as TensorFlow has."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    return torch.device("cpu")


def to_torch(values: npt.NDArray[np.generic], precision: str = "float32") -> torch.Tensor:
    """An array as a tensor of :func:`torch_device`; integers become int64, as PyTorch's losses want them."""
    kind = torch.int64 if np.issubdtype(values.dtype, np.integer) else getattr(torch, precision)
    return torch.tensor(values, dtype=kind, device=torch_device())


def nchw(images: npt.NDArray[np.float32]) -> torch.Tensor:
    """Images [N, H, W, C] as PyTorch takes them, [N, C, H, W]."""
    return to_torch(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
