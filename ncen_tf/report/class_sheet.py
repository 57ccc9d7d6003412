"""A picture with one image of each class, to see whether images and names belong together."""

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ncen_tf.data.dataset import Split

_MOST = 100
"""Classes that are shown."""


def save_class_sheet(data: Split, file: Path) -> None:
    """Write a PNG file with the first image of each class and its name, of the first 100 classes at most."""
    labels, first = np.unique(data.labels, return_index=True)
    labels, first = labels[:_MOST], first[:_MOST]
    columns = math.ceil(math.sqrt(len(labels)))
    rows = math.ceil(len(labels) / columns)
    figure = Figure(figsize=(1.4 * columns, 1.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, label, image in zip(grid, labels, data[first].float_images(), strict=False):
        axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)
        axes.set_title(data.class_names[label][:20], fontsize=8, parse_math=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)
