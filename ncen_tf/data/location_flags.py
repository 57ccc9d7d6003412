"""The flags of every program that say where datasets are."""

from pathlib import Path

from absl import flags

from ncen_tf.data.dataset import Dataset, load_data

DATA_DIR = flags.DEFINE_string("data_dir", None, "tensorflow-datasets folder (default: its own)")
ARCHIVE_DIR = flags.DEFINE_string("archive_dir", None, "folder with the dataset's archives")


def load_from_flags(
    name: str, train_examples: int | None = None, test_examples: int | None = None
) -> Dataset:
    """:func:`load_data` from where ``--data_dir`` and ``--archive_dir`` say."""
    return load_data(
        name,
        data_dir=Path(DATA_DIR.value) if DATA_DIR.value else None,
        archive_dir=Path(ARCHIVE_DIR.value) if ARCHIVE_DIR.value else None,
        train_examples=train_examples,
        test_examples=test_examples,
    )
