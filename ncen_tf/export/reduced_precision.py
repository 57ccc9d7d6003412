"""float16 and int8 siblings of an exported ONNX file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ncen_tf.data.dataset import Split
from ncen_tf.export.onnx_file import check_onnx
from ncen_tf.export.serving import IMAGE
from ncen_tf.base.files import replacing

PRECISIONS = ("float16", "int8")
INT8_OPSET = 13
"""The first whose QuantizeLinear knows channels."""
CALIBRATION_IMAGES = 512
CALIBRATION_BATCH = 64


def reduce_precision(model_file: Path, precision: str, calibration: Split) -> Path:
    """Write a reduced-precision file beside a float32 one, with onnxruntime's own tools.

    float16 keeps float32 inputs and outputs. int8 quantises convolutions and matrix products, weights
    per channel, activations by their range on training images.

    Args:
        model_file: ``NAME.onnx``.
        precision: ``float16`` or ``int8``.
        calibration: training images; the first 512 are used for int8.

    Returns:
        ``NAME.PRECISION.onnx``.
    """
    target = model_file.with_suffix(f".{precision}.onnx")
    if precision == "float16":
        from onnxruntime.transformers.float16 import convert_float_to_float16
        from onnxruntime.transformers.onnx_model import OnnxModel

        converted = OnnxModel(convert_float_to_float16(onnx.load(model_file), keep_io_types=True))
        converted.topological_sort()  # the converter appends the casts of the input at the end
        check_onnx(converted.model)
        with replacing(target) as temporary:
            onnx.save(converted.model, temporary)
        return target
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with replacing(target) as temporary:
        quantize_static(
            str(model_file),
            str(temporary),
            _Calibration(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        check_onnx(onnx.load(temporary))
    return target


class _Calibration:
    """onnxruntime's CalibrationDataReader: batches of images, then None."""

    def __init__(self, split: Split) -> None:
        self._batches = self._read(split)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)

    @staticmethod
    def _read(split: Split) -> Iterator[dict[str, Any]]:
        for start in range(0, min(len(split), CALIBRATION_IMAGES), CALIBRATION_BATCH):
            batch = split.images[start : start + CALIBRATION_BATCH]
            yield {IMAGE: batch.astype(np.float32) / 255}
