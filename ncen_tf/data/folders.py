"""Labelled image files: a folder of class folders, or a CSV of names and labels."""

import csv
import logging
from pathlib import Path

import numpy as np

from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Split
from ncen_tf.data.image_files import SUFFIXES, read_images

logger = logging.getLogger(__name__)

LABELS = "labels.csv"
_NAME_COLUMNS, _LABEL_COLUMNS = ("name", "filename", "file", "path", "image"), ("label", "class")

Labelled = list[tuple[Path, str]]


def read_folder(
    source: Path, image_size: tuple[int, int] | None = None, classes: tuple[str, ...] | None = None
) -> Split:
    """Read images in a folder of class folders, in a folder with ``labels.csv``, or listed in a CSV.

    The files are read in an order that is shuffled with a fixed seed, so that the first ones are a sample.

    Args:
        source: The folder, or the CSV, whose names are relative to its folder.
        image_size: (height, width) that images are resized and cut to.
        classes: Names of the classes, in the order of their numbers; alphabetical by default.

    Raises:
        InputError: There is no image, fewer than two classes, or a class that ``classes`` does not name.
    """
    table = source if source.is_file() else source / LABELS
    labelled = _read_csv(table) if table.is_file() else _list_class_folders(source)
    found = sorted({name for _, name in labelled})
    if classes is None and all(name.isdecimal() for name in found) and table.is_file():
        classes = tuple(str(number) for number in range(max(map(int, found)) + 1))
    names = classes or tuple(found)
    unknown = [name for name in found if name not in names]
    if unknown:
        raise InputError(f"{source} has images of {unknown[0]!r}, which `classes` does not name.")
    if len(names) < 2:
        raise InputError(f"{source} has images of one class only, {found[0]!r}: a classifier needs two.")
    order = np.random.default_rng(0).permutation(len(labelled))
    files = [labelled[index][0] for index in order]
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[labelled[index][1]] for index in order], np.int32)
    images, read = read_images(files, image_size)
    return Split(images, labels[read], source.resolve().stem, names)


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
