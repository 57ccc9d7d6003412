"""Images brought to one size: what is kept of them, how pixels are interpolated, what memory they take."""

from pathlib import Path
from typing import Literal, Self

import numpy as np
from PIL import Image
from pydantic import Field, field_validator, model_validator

from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import Settings
from ncen_tf.data.dataset import Images

Resize = Literal["antialias", "bicubic", "bilinear"]

_MEMINFO = Path("/proc/meminfo")


class Sizing(Settings):
    """How images are brought to one size; without ``image_size`` they are left as they are.

    The largest part at the centre that has the proportions of ``image_size`` is taken, ``crop_fraction`` of
    it kept, and interpolated.
    """

    image_size: tuple[int, ...] = Field(
        default=(), description="Height and width, or one number for both, that images are brought to"
    )
    resize: Resize = Field(
        default="antialias",
        description="Interpolation: antialias is bilinear with antialiasing, and bicubic has it too, as in "
        "PIL and torchvision; bilinear has none, as in tf.image.resize and OpenCV",
    )
    crop_fraction: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of height and width that is kept at the centre: 0.875 is 224 of 256 pixels",
    )

    @field_validator("image_size")
    @classmethod
    def _check_size(cls, image_size: tuple[int, ...]) -> tuple[int, ...]:
        if len(image_size) > 2 or min(image_size, default=1) < 1:
            raise InputError(f"`image_size` must be one or two numbers above 0, got {list(image_size)}.")
        return image_size

    @model_validator(mode="after")
    def _check_use(self) -> Self:
        if not self.image_size and (self.resize != "antialias" or self.crop_fraction != 1):
            raise InputError("`resize` and `crop_fraction` need an `image_size`.")
        return self

    def fit(self, image: Image.Image) -> Image.Image:
        """Bring an image of mode L, RGB or F to the size."""
        if not self.image_size:
            return image
        height, width = self.image_size[0], self.image_size[-1]
        scale = self.crop_fraction * min(image.width / width, image.height / height)
        left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
        left, top = max(left, 0.0), max(top, 0.0)  # Rounding may go below.
        box = (left, top, image.width - left, image.height - top)
        if self.resize == "bilinear":
            return image.transform((width, height), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
        bicubic = self.resize == "bicubic"
        kernel = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
        return image.resize((width, height), kernel, box)

    def fit_arrays(self, images: Images) -> Images:
        """Bring uint8 or float32 images [N, H, W, C] to the size."""
        if not self.image_size:
            return images
        height, width = self.image_size[0], self.image_size[-1]
        fitted = np.empty((len(images), height, width, images.shape[3]), images.dtype)
        for image, into in zip(images, fitted, strict=True):
            for channel in range(images.shape[3]):
                into[..., channel] = self.fit(Image.fromarray(image[..., channel]))
        return fitted if images.dtype == np.uint8 else fitted.clip(0, 1)


def require_memory(count: int, image_shape: tuple[int, ...], item_size: int = 1) -> None:
    """Refuse images that do not fit in the free memory, where Linux tells how much that is.

    Args:
        count: Number of images.
        image_shape: (height, width, channels).
        item_size: Bytes of a value.

    Raises:
        InputError: There is too little memory.
    """
    lines = _MEMINFO.read_text().splitlines() if _MEMINFO.is_file() else []
    free = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    height, width, channels = image_shape
    # Images are gathered one by one, and then copied to one array.
    needed = 2 * count * height * width * channels * item_size
    if free and needed > free[0]:
        raise InputError(
            f"{count:,} images of {height} x {width} x {channels} take {needed / 1e9:.1f} GB while they are "
            f"read, and {free[0] / 1e9:.1f} GB are free: set a smaller `image_size`, or take fewer images."
        )
