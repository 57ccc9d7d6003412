"""Labelled image files: a folder of class folders, or a CSV of names and labels."""

import csv
import logging
from pathlib import Path

import numpy as np

from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Split
from ncen_tf.data.image_files import SUFFIXES, read_images
from ncen_tf.data.sizing import Sizing

logger = logging.getLogger(__name__)

LABELS = "labels.csv"
_NAME_COLUMNS, _LABEL_COLUMNS = ("name", "filename", "file", "path", "image"), ("label", "class")

Labelled = list[tuple[Path, str]]


def list_images(source: Path) -> tuple[Labelled, tuple[str, ...]]:
    """List the images in a folder of class folders, in a folder with ``labels.csv``, or listed in a CSV.

    The order is shuffled with a fixed seed, so that the first files are a sample.

    Args:
        source: The folder, or the CSV, whose names are relative to its folder.

    Returns:
        Files with the names of their classes; and the names of all classes, in alphabetical order. Names that
        are all numbers are in numeric order; in a CSV, they are class numbers and kept as they are.

    Raises:
        InputError: There is no image, or the CSV cannot be read.
    """
    table = source if source.is_file() else source / LABELS
    labelled = _read_csv(table) if table.is_file() else _list_class_folders(source)
    found = sorted({name for _, name in labelled})
    if all(name.isdecimal() for name in found):
        found.sort(key=int)
        if table.is_file():
            found = [str(number) for number in range(int(found[-1]) + 1)]
    order = np.random.default_rng(0).permutation(len(labelled))
    return [labelled[index] for index in order], tuple(found)


def read_labelled(
    labelled: Labelled, classes: tuple[str, ...], sizing: Sizing, name: str, limit: int | None = None
) -> Split:
    """Read listed images.

    Args:
        labelled: Files and names of their classes.
        classes: Names of the classes, in the order of their numbers.
        sizing: The size that images are brought to.
        name: Name of the dataset.
        limit: Number of files to read; ``None`` for all.

    Raises:
        InputError: No file can be read, sizes differ, the memory is too small, or a class is not in
            ``classes``.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = next((label for _, label in labelled if label not in numbers), None)
    if unknown is not None:
        raise InputError(f"{name} has test images of {unknown!r} and no training images.")
    images, read = read_images([file for file, _ in labelled[:limit]], sizing)
    labels = np.array([numbers[labelled[index][1]] for index in read], np.int32)
    return Split(images, labels, name, classes)


def read_classes(file: Path) -> tuple[str, ...]:
    """Read names of classes, one a line.

    Raises:
        InputError: The file cannot be read, has fewer than two names, or one twice.
    """
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"`classes`: {file} cannot be read: {error}.") from error
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"`classes`: {file} must name two classes or more, one a line, each once.")
    return tuple(names)


def _list_class_folders(folder: Path) -> Labelled:
    labelled: Labelled = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith((".", "__")):
            files = sorted(file for file in entry.rglob("*") if file.suffix.lower() in SUFFIXES)
            if not files:
                logger.warning("%s has no image and is left out", entry)
            labelled += [(file, entry.name) for file in files]
    if not labelled:
        raise InputError(
            f"{folder} has no class folders with images ({', '.join(SUFFIXES)}) and no {LABELS}: make a "
            "folder for each class, or list file names and labels."
        )
    return labelled


def _read_csv(table: Path) -> Labelled:
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} cannot be read: {error}.") from error
    columns = list(rows[0]) if rows else []
    name = next((column for column in _NAME_COLUMNS if column in columns), None)
    label = next((column for column in _LABEL_COLUMNS if column in columns), None)
    if name is None or label is None:
        raise InputError(
            f"{table} needs a column {' or '.join(_NAME_COLUMNS)} and a column "
            f"{' or '.join(_LABEL_COLUMNS)}, and a row for each image; it has "
            f"{', '.join(map(str, columns)) or 'no row'}."
        )
    for number, row in enumerate(rows, start=2):
        if not row[name] or not row[label]:
            raise InputError(f"{table}, line {number}: a name or a label is missing.")
    return [(table.parent / row[name], row[label].strip()) for row in rows]
