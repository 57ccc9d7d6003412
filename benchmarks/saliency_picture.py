"""Draw heat maps of the reference export on test images of FashionMNIST.

python -m benchmarks.saliency_picture --out=docs/saliency.png
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import onnx
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import Field

from ncen_tf import program
from ncen_tf.base.settings import Settings
from ncen_tf.data.loading import load_data
from ncen_tf.onnx_grad.saliency import saliency

CLASSES = (1, 5, 7, 8)
HEADS = ("image", "gradient", "integrated gradients", "Grad-CAM")


class PictureFlags(Settings):
    """Flags of the program."""

    model: Path = Field(Path("exports/reference/ensemble.onnx"), description="ONNX ensemble to explain")
    out: Path = Field(description="PNG file to write")


def main(flags: PictureFlags) -> None:
    test = load_data("fashion_mnist_sample").test
    first = [int(np.flatnonzero(np.asarray(test.labels) == label)[0]) for label in CLASSES]
    images = np.asarray(test.images)[first].astype(np.float32) / 255
    model = onnx.load(flags.model)
    output = "member_logits"

    def heat(method: str, layer: str | None = None) -> NDArray[np.float32]:
        return np.asarray(
            saliency(model, images, CLASSES, method, output=output, layer=layer, channel_axis=-1)
        )

    pooled = [node.input[0] for node in model.graph.node if node.op_type == "GlobalAveragePool"]
    columns = (
        images[..., 0],
        heat("gradient"),
        np.abs(heat("integrated_gradients")),
        np.mean([heat("grad_cam", layer) for layer in pooled], axis=0),
    )
    mpl.rcParams["font.size"] = 7
    figure = Figure(figsize=(4.8, 4.8), layout="constrained")
    for row, line in enumerate(figure.subplots(len(images), len(columns))):
        for axes, title, maps in zip(line, HEADS, columns, strict=True):
            axes.imshow(maps[row], cmap="gray" if title == "image" else "magma")
            axes.set_axis_off()
            if not row:
                axes.set_title(title, fontsize=6)
    figure.savefig(flags.out, dpi=80, metadata={"Software": None})


if __name__ == "__main__":
    program.run(PictureFlags, main)
