"""Labelled image files: a folder of class folders or a CSV of names and labels, decoded to one array."""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import MOST_CLASSES, Split
from ncen_tf.data.sizing import Sizing, require_memory

logger = logging.getLogger(__name__)

LABELS = "labels.csv"
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
_NAME_COLUMNS, _LABEL_COLUMNS = ("name", "filename", "file", "path", "image"), ("label", "class")
_MOST_PIXELS = 100_000_000
_GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L", "LA", "La")
_NAMED = 5
"""Number of files that cannot be read which are named in the warning."""

Labelled = list[tuple[Path, str]]


def list_images(source: Path) -> tuple[Labelled, tuple[str, ...]]:
    """List the images in a folder of class folders, in a folder with ``labels.csv``, or listed in a CSV.

    The order is shuffled with a fixed seed. Names in a CSV are relative to its folder.

    Returns:
        Files with the names of their classes; and the names of all classes, in alphabetical order. Names that
        are all numbers are in numeric order; in a CSV, they are class numbers and kept as they are.

    Raises:
        InputError: There is no image, the CSV cannot be read, or a class number in it is too large.
    """
    table = source if source.is_file() else source / LABELS
    labelled = _read_csv(table) if table.is_file() else _list_class_folders(source)
    found = sorted({name for _, name in labelled})
    if all(name.isdecimal() for name in found):
        found.sort(key=int)
        if table.is_file():
            if int(found[-1]) >= MOST_CLASSES:
                raise InputError(f"{table}: class numbers must be below {MOST_CLASSES}, got {found[-1]}.")
            found = [str(number) for number in range(int(found[-1]) + 1)]
    order = np.random.default_rng(0).permutation(len(labelled))
    return [labelled[index] for index in order], tuple(found)


def read_labelled(labelled: Labelled, classes: tuple[str, ...], sizing: Sizing, name: str) -> Split:
    """Read listed images, whose classes have the numbers of ``classes``, as :func:`read_images` does.

    Raises:
        InputError: The images cannot be read, or a class is not in ``classes``.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = next((label for _, label in labelled if label not in numbers), None)
    if unknown is not None:
        raise InputError(f"{name} has test images of {unknown!r} and no training images.")
    images, read = read_images([file for file, _ in labelled], sizing)
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


def read_images(files: Sequence[Path], sizing: Sizing) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]:
    """Decode image files to one array; those that cannot be read or are animated are named in a warning.

    Images are grey (one channel) if all files are, otherwise colour: grey files then fill three channels.
    16-bit files are scaled to 8 bits, CMYK is converted without a colour profile, transparent pixels
    are laid over white, palettes are resolved, and an EXIF orientation is applied.

    Returns:
        uint8 [N, H, W, C], and the indices of the N files that were read.

    Raises:
        InputError: No file can be read, sizes differ without a size, or there is too little memory.
    """
    images, read, skipped = [], [], []
    for index, file in enumerate(files):
        try:
            image = decode(file)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            skipped.append(f"{file} ({' '.join(str(error).split())[:100]})")
            continue
        images.append(sizing.fit(image))
        if len(images) == 1:
            size = images[0].height, images[0].width, len(image.getbands())
            require_memory(len(files), size)
        read.append(index)
    if skipped:
        more = f" and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
        logger.warning("%d files are left out: %s%s", len(skipped), "; ".join(skipped[:_NAMED]), more)
    if not images:
        raise InputError(f"None of {len(files)} image files can be read, the first is {skipped[0]}.")
    sizes = {image.size: files[index] for image, index in zip(images, read, strict=True)}
    if len(sizes) > 1:
        (one, first), (other, second) = list(sizes.items())[:2]
        raise InputError(
            f"Images have different sizes ({first} has {one[1]} x {one[0]} pixels, {second} has {other[1]} x "
            f"{other[0]}): set `image_size`."
        )
    mode = "L" if all(image.mode == "L" for image in images) else "RGB"
    pixels = np.stack([np.asarray(image.convert(mode)) for image in images])
    return (pixels[..., np.newaxis] if mode == "L" else pixels), np.array(read)


def decode(file: Path) -> Image.Image:
    """Decode a file to 8-bit grey (mode L) or RGB.

    Raises:
        OSError, ValueError, SyntaxError: The file is damaged, animated, or too large.
    """
    with Image.open(file) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError(f"animated, {getattr(image, 'n_frames', 1)} frames")
        image.load()
        return _as_8_bits(ImageOps.exif_transpose(image))


def _as_8_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values: npt.NDArray[Any] = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("pixels of more than 16 bits")
        return Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("pixels are floats of unknown range")
    mode = "L" if image.mode in _GREY_MODES or _is_grey_palette(image) else "RGB"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert(mode)


def _is_grey_palette(image: Image.Image) -> bool:
    """Tell whether an image of palette colours, such as a GIF, uses grey ones only."""
    if image.mode != "P":
        return False
    colors = np.asarray(image.convert("RGBA"))[..., :3]  # Pillow warns of RGB if colours are transparent.
    return bool((colors == colors[..., :1]).all())
