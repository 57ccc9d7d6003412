"""The reader of each format."""

from collections.abc import Callable
from pathlib import Path

from tests.fuzzing.readers import images, models, records, settings

READERS: dict[str, Callable[[Path], None]] = {
    function.__name__: function
    for function in (
        models.onnx,
        models.onnx_parity,
        models.keras,
        models.saved_model,
        models.run,
        models.checkpoint,
        images.archives,
        images.prepared,
        images.adversarials,
        images.attack_result,
        images.attack_batches,
        settings.flagfile,
        settings.run_flags,
        settings.gate,
        settings.suite,
        settings.grid,
        records.manifest,
        records.metrics,
        records.report,
        records.transfer,
        records.cell,
        records.records,
    )
}
