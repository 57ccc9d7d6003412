"""Image files decoded to arrays of one size."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ncen_tf.base.errors import InputError
from ncen_tf.data.memory import require_memory
from ncen_tf.data.sizing import Sizing

logger = logging.getLogger(__name__)

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
_MOST_PIXELS = 100_000_000
_GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L", "LA", "La")
_NAMED = 5

Pixels = npt.NDArray[np.uint8]


def read_images(files: Sequence[Path], sizing: Sizing) -> tuple[Pixels, npt.NDArray[np.intp]]:
    """Decode image files to one array; those that cannot be read or are animated are named in a warning.

    Images are grey (one channel) if all files are, otherwise colour: grey files then fill three channels.
    16-bit files are scaled to 8 bits, CMYK is converted without a colour profile, transparent pixels
    are laid over white, palettes are resolved, and an EXIF orientation is applied.

    Args:
        files: Paths of the files.
        sizing: The size that images are brought to; without one, all files must have the same.

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
    mode = "L" if image.mode in _GREY_MODES else "RGB"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert(mode)
