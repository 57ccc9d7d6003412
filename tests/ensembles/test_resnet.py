"""Members: sizes of the paper, and the same function as a PyTorch ResNet with the same weights."""

import keras
import numpy as np
import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.resnet import SubsampleShortcut, build_resnet
from ncen_tf.ensembles.structures import parse_architecture, structure_architecture


@pytest.mark.parametrize(
    ("depth", "channels", "parameters"),
    [
        (20, 1, 269_434),
        (26, 1, 366_650),
        (32, 1, 463_866),
        (20, 3, 269_722),
        (26, 3, 366_938),
        (32, 3, 464_154),
    ],
)
def test_trainable_parameters(depth: int, channels: int, parameters: int) -> None:
    member = build_resnet(depth, (28, 28, channels))
    assert sum(int(np.prod(v.shape)) for v in member.trainable_variables) == parameters


@pytest.mark.parametrize("depth", [2, 7, 18, 21])
def test_other_depths_are_refused(depth: int) -> None:
    with pytest.raises(InputError, match="`depth` must be 6n"):
        build_resnet(depth, (28, 28, 1))


def test_initial_weights_are_he_normal_over_the_fan_in_and_not_cut() -> None:
    member = build_resnet(20, (28, 28, 1), seed=0)
    kernels = [
        layer.kernel.numpy()
        for layer in member.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.filters == 64
    ]
    scaled = np.concatenate([(k / np.sqrt(2.0 / np.prod(k.shape[:3]))).ravel() for k in kernels])
    assert abs(scaled.std() - 1) < 0.02
    assert np.abs(scaled).max() > 3.5  # a truncated normal would end at about 2.3


def test_seed_decides_the_initial_weights() -> None:
    first, same, other = (build_resnet(8, (28, 28, 1), seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(("depth", "shape"), [(20, (28, 28, 1)), (32, (32, 32, 3)), (8, (29, 27, 1))])
def test_logits_equal_those_of_a_pytorch_resnet(depth: int, shape: tuple[int, int, int]) -> None:
    torch = pytest.importorskip("torch")
    from benchmarks.peers.torch_resnet import copy_member

    generator = np.random.default_rng(depth)
    member = build_resnet(depth, shape, seed=1)
    for variable in member.variables:  # scales, biases and statistics away from 0 and 1
        if len(variable.shape) == 1:
            low, high = (0.3, 0.7) if variable.name == "gamma" else (0.5, 1.5)
            variable.assign(generator.uniform(low, high, variable.shape))
    reference = copy_member(member).eval()
    images = generator.uniform(size=(5, *shape)).astype(np.float32)
    with torch.no_grad():
        expected = reference(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    assert np.abs(member(images, training=False).numpy() - expected).max() < 1e-4


def test_shortcut_takes_every_second_pixel_and_pads_channels_on_both_sides() -> None:
    images = np.arange(2 * 5 * 4 * 2, dtype=np.float32).reshape(2, 5, 4, 2)
    out = SubsampleShortcut(4)(images).numpy()
    assert out.shape == (2, 3, 2, 4)
    np.testing.assert_array_equal(out[..., 1:3], images[:, ::2, ::2])
    assert not out[..., [0, 3]].any()


@pytest.mark.parametrize(
    ("structure", "members", "depths"),
    [
        ("Ensemble1", 3, [20, 20, 20]),
        ("Ensemble2", 4, [26] * 4),
        ("Ensemble3", 5, [32] * 5),
        ("Ensemble4", 3, [20, 26, 32]),
        ("Ensemble4", 4, [20, 20, 26, 32]),
        ("Ensemble4", 5, [20, 20, 26, 26, 32]),
    ],
)
def test_structures_of_the_paper(structure: str, members: int, depths: list[int]) -> None:
    assert structure_architecture(structure, members) == tuple(f"resnet{depth}" for depth in depths)


def test_unknown_structures_and_members_are_refused() -> None:
    with pytest.raises(InputError, match="Ensemble5"):
        structure_architecture("Ensemble5", 3)
    with pytest.raises(InputError, match="3, 4 or 5"):
        structure_architecture("Ensemble1", 2)
    for names in (["resnet20"], ["resnet20", "resnet19"], ["resnet20", "vgg15"], ["resnet2", "resnet8"]):
        with pytest.raises(InputError, match="`members` must be"):
            parse_architecture(names)
