"""The defaults of training that go with each dataset."""

import dataclasses

from ncen_tf.data.dataset import CLASS_NAMES, IMAGE_SHAPES


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """What training and attacks need to know of a dataset before its images are read.

    The defaults are the paper's (Luo et al., section IV-A).
    """

    name: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    epochs: int
    noise_eps: float
    """D_noise adds a normal of deviation noise_eps / 2, cut at noise_eps; images are in [0, 1]."""
    flip: bool
    """Whether augmentation mirrors images left to right."""
    lambda_cos: float
    lambda_norm: float
    lambda_div: float
    at_eps: float
    """Linf radius of adversarial training; the paper has none, so it is the field's usual one."""


_FASHION_MNIST = DatasetSpec(
    "fashion_mnist",
    image_shape=IMAGE_SHAPES["fashion_mnist"],
    class_names=CLASS_NAMES["fashion_mnist"],
    epochs=40,
    noise_eps=0.3,
    flip=False,
    lambda_cos=0.02,
    lambda_norm=0.02,
    lambda_div=0.1,
    at_eps=0.1,
)
_CIFAR10 = DatasetSpec(
    "cifar10",
    image_shape=IMAGE_SHAPES["cifar10"],
    class_names=CLASS_NAMES["cifar10"],
    epochs=60,
    noise_eps=0.09,
    flip=True,
    lambda_cos=0.06,
    lambda_norm=0.04,
    lambda_div=0.04,
    at_eps=8 / 255,
)
DATASETS = {
    spec.name: spec
    for spec in (_FASHION_MNIST, dataclasses.replace(_FASHION_MNIST, name="fashion_mnist_sample"), _CIFAR10)
}
