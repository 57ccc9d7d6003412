"""Attack int8 copies of an ONNX classifier: straight through, from its float32 sibling, and by queries.

python -m benchmarks.quantized_attacks --out=docs/benchmarks/quantized_attacks.json
"""

import shutil
import tempfile
from pathlib import Path

from onnxruntime.quantization import quantize_dynamic
from pydantic import Field

import ncen_tf
from benchmarks.results import BenchmarkFlags, Row, Table, publish
from ncen_tf import program
from ncen_tf.attack.auto_pgd import AutoPgdCrossEntropy
from ncen_tf.attack.iterative import MomentumIterative
from ncen_tf.attack.square import Square
from ncen_tf.export.conversion import reduce_precision

ABOUT = """Robust accuracy of the reference export (3 x ResNet20, FashionMNIST) and of two int8 copies of
it, over test images balanced over classes, in Linf. QDQ is `quantize_static` (pairs of
QuantizeLinear and DequantizeLinear, calibrated on 512 training images), dynamic is
`quantize_dynamic`. The columns of attacks run on the file itself, for int8 straight through,
that is with the gradient of the model without rounding; `of float32` are the images that the
same attack made on the float32 file, shown to this one. Masked gradients: the failed checks of
the verdict."""


class QuantizedFlags(BenchmarkFlags):
    """Flags of the program."""

    model: Path = Field(Path("exports/reference/ensemble.onnx"), description="Float32 ONNX file")
    images: int = Field(100, ge=1, description="Number of test images")
    eps: tuple[float, ...] = Field((0.02, 0.05), description="Bounds of the attacks, in Linf")
    queries: int = Field(2000, ge=1, description="Most queries of Square for an image")


def main(flags: QuantizedFlags) -> None:
    data = ncen_tf.load_data("fashion_mnist")
    test = data.test.sample(flags.images)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        plain, dynamic = Path(folder) / "model.onnx", Path(folder) / "model.dynamic.onnx"
        shutil.copy(flags.model, plain)
        quantize_dynamic(plain, dynamic)
        files = {"float32": plain, "QDQ": reduce_precision(plain, "int8", data.train), "dynamic": dynamic}
        for eps in flags.eps:
            attacks = (
                MomentumIterative(eps=eps, steps=10, step_size=eps / 10, decay=1.0),
                AutoPgdCrossEntropy(eps=eps),
                Square(eps=eps, queries=flags.queries),
            )
            images = Path(folder) / f"eps {eps}"
            for kind, file in files.items():
                report = ncen_tf.evaluate(
                    file,
                    test,
                    suite=ncen_tf.Suite(name="quantized", attacks=attacks, objective="ensemble"),
                    examples=0,
                    check_gradients=True,
                    quantization="straight_through",
                    out=images / kind,
                    save_adversarials=True,
                )
                row: Row = {"model": kind, "eps": eps, "clean": report.clean_accuracy.value}
                row |= {each.attack: each.robust_accuracy.value for each in report.attacks}
                for attack in attacks[:2]:
                    (saved,) = (images / "float32" / "adversarials").glob(f"{attack.name}-*")
                    shown = ncen_tf.evaluate_saved(file, saved)
                    row[f"{attack.name} of float32"] = shown.attacks[0].robust_accuracy.value
                checks = report.masked_gradients.checks if report.masked_gradients else ()
                row["masked gradients"] = ", ".join(each.name for each in checks if not each.passed) or "none"
                rows.append(row)
                print(report.target.signatures[0], row, *checks, sep="\n", flush=True)
    title = f"Robust accuracy, {flags.images} images"
    publish("quantized_attacks", "Attacks on int8 models", ABOUT, [Table(title, rows)], flags)


if __name__ == "__main__":
    program.run(QuantizedFlags, main)
