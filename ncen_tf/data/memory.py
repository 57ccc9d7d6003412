"""Memory that images will take, checked before they are read."""

from pathlib import Path

from ncen_tf.base.errors import InputError

COPIES = 2
"""Images are gathered one by one, and then copied to one array."""
_MEMINFO = Path("/proc/meminfo")


def require_memory(count: int, image_shape: tuple[int, ...], item_size: int = 1) -> None:
    """Refuse images that do not fit in the free memory, where the system tells how much that is.

    Args:
        count: Number of images.
        image_shape: (height, width, channels).
        item_size: Bytes of a value.

    Raises:
        InputError: There is too little memory.
    """
    height, width, channels = image_shape
    needed, free = COPIES * count * height * width * channels * item_size, free_memory()
    if free is not None and needed > free:
        raise InputError(
            f"{count:,} images of {height} x {width} x {channels} take {needed / 1e9:.1f} GB while they are "
            f"read, and {free / 1e9:.1f} GB are free: set a smaller `image_size`, or take fewer images."
        )


def free_memory() -> int | None:
    """Return the bytes that Linux can give to processes without swapping; ``None`` on other systems."""
    if not _MEMINFO.is_file():
        return None
    lines = _MEMINFO.read_text().splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
