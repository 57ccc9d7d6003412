"""Attack an int8 copy of an ONNX classifier: straight through, from its float32 sibling, and by queries.

python -m benchmarks.quantized_attacks --out=docs/benchmarks/quantized_attacks.json
"""

import shutil
import tempfile
from pathlib import Path

from pydantic import Field

import ncen_tf
from benchmarks.results import BenchmarkFlags, Row, Table, publish
from ncen_tf import program
from ncen_tf.attack.iterative import MomentumIterative
from ncen_tf.attack.square import Square
from ncen_tf.export.conversion import reduce_precision

ABOUT = """Robust accuracy of the reference export (3 x ResNet20, FashionMNIST) and of an int8 copy of it,
made by `quantize_static` in the format QDQ and calibrated on 512 training images, on images of the embedded
sample, balanced over classes, in Linf, seed 0. MI-FGSM takes 10 steps of a tenth of the bound on the mean of
the members' softmax; on int8 by the gradient of the model without rounding
(`--quantization=straight_through`). `of float32` are the images that MI-FGSM made on the float32 file. Square
uses no gradient."""


class QuantizedFlags(BenchmarkFlags):
    """Flags of the program."""

    model: Path = Field(Path("exports/reference/ensemble.onnx"), description="Float32 ONNX file")
    images: int = Field(100, ge=1, description="Number of test images")
    eps: tuple[float, ...] = Field((0.1,), description="Bounds of the attacks, in Linf")
    queries: int = Field(200, ge=1, description="Most queries of Square for an image")


def main(flags: QuantizedFlags) -> None:
    data = ncen_tf.load_data("fashion_mnist_sample")
    test = data.test.sample(flags.images)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "model.onnx"
        shutil.copy(flags.model, plain)
        files = {"float32": plain, "int8": reduce_precision(plain, "int8", data.train)}
        for eps in flags.eps:
            images = Path(folder) / f"eps {eps}"
            attacks = (
                MomentumIterative(eps=eps, steps=10, step_size=eps / 10, decay=1.0),
                Square(eps=eps, queries=flags.queries),
            )
            for kind, file in files.items():
                report = ncen_tf.evaluate(
                    file,
                    test,
                    suite=ncen_tf.Suite(name="quantized", attacks=attacks, objective="ensemble"),
                    examples=0,
                    quantization="straight_through",
                    out=images / kind,
                    save_adversarials=True,
                )
                (saved,) = (images / "float32" / "adversarials").glob("MI-FGSM-*")
                of_float32 = ncen_tf.evaluate_saved(file, saved).attacks[0]
                row: Row = {"model": kind, "eps": eps, "clean": report.clean_accuracy.value}
                row |= {each.attack: each.robust_accuracy.value for each in report.attacks}
                rows.append(row | {"MI-FGSM of float32": of_float32.robust_accuracy.value})
                print(rows[-1], flush=True)
    title = f"Robust accuracy, {flags.images} images, Square with {flags.queries} queries"
    publish("quantized_attacks", "Attacks on an int8 model", ABOUT, [Table(title, rows)], flags)


if __name__ == "__main__":
    program.run(QuantizedFlags, main)
