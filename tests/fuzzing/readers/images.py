"""Datasets, adversarial images and what attacks made of them."""

from pathlib import Path

from tests.fuzzing.seeds.models import IMAGE_SHAPE


def archives(folder: Path) -> None:
    """A dataset from local archives."""
    from ncen_tf.data.dataset import load_data

    load_data("fashion_mnist", data_dir=folder / "tfds", archive_dir=folder)


def prepared(folder: Path) -> None:
    """A dataset that tensorflow-datasets has prepared."""
    from ncen_tf.data.dataset import load_data

    load_data("fashion_mnist", data_dir=folder, archive_dir=folder)


def adversarials(folder: Path) -> None:
    """Saved adversarial examples, to the point where a target is shown them."""
    from ncen_tf.attack.result_files import read_adversarials

    saved = read_adversarials(folder / "adversarials.npz")
    f"{saved.settings['attack']} {saved.settings['norm']} {saved.settings['eps']:g}".encode()
    assert len(saved.images) == len(saved.adversarials) == len(saved.labels)
    assert saved.images.dtype == saved.adversarials.dtype == "float32"


def attack_result(folder: Path) -> None:
    """A finished attack of an earlier run; damage is as good as none."""
    from ncen_tf.attack.result_files import read_result

    result = read_result(folder / "result.npz", "the key")
    if result is not None:
        assert len(result.attacked) == len(result.predictions) == len(result.l2) == len(result.linf)
        f"{result.settings['attack']} {result.settings['norm']} {result.settings['eps']:g}".encode()


def attack_batches(folder: Path) -> None:
    """The finished batches of an attack that was interrupted; damage is as good as none."""
    from ncen_tf.attack.result_files import BatchFiles

    for batch in BatchFiles(folder, "the key").read((3, *IMAGE_SHAPE)):
        assert batch.adversarials.shape == (3, *IMAGE_SHAPE)
        assert batch.adversarials.dtype == "float32"
        f"{batch.queries:d} {batch.gradients:d} {batch.seconds:g}".encode()
