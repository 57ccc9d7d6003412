"""The datasets of the paper and the defaults that go with each."""

import dataclasses

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


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


DATASETS = {
    spec.name: spec
    for spec in (
        DatasetSpec("fashion_mnist", (28, 28, 1), FASHION_MNIST_CLASSES, 40, 0.3, False, 0.02, 0.02),
        DatasetSpec("fashion_mnist_sample", (28, 28, 1), FASHION_MNIST_CLASSES, 40, 0.3, False, 0.02, 0.02),
        DatasetSpec("cifar10", (32, 32, 3), CIFAR10_CLASSES, 60, 0.09, True, 0.06, 0.04),
    )
}
