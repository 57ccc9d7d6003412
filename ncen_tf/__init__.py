"""NCEn-TF: train, export and attack negative-correlation ensembles of image classifiers."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Public names and the modules that define them: loaded at first use (PEP 562), so that `import ncen_tf` and
# `--help` do not wait for TensorFlow.
_MODULES = {
    "ADP": "ncen_tf.ensembles.regularizers",
    "AdversarialTraining": "ncen_tf.ensembles.adversarial",
    "CellRecord": "ncen_tf.sweep.records",
    "Dataset": "ncen_tf.data.dataset",
    "Ensemble": "ncen_tf.ensembles.ensemble",
    "GAL": "ncen_tf.ensembles.regularizers",
    "GPMR": "ncen_tf.ensembles.regularizers",
    "Gate": "ncen_tf.report.gate",
    "InputError": "ncen_tf.base.errors",
    "Manifest": "ncen_tf.export.manifest",
    "NCE": "ncen_tf.ensembles.regularizers",
    "OnnxInterface": "ncen_tf.targets.target",
    "Report": "ncen_tf.report.results",
    "Split": "ncen_tf.data.dataset",
    "Suite": "ncen_tf.attack.suites",
    "Sweep": "ncen_tf.sweep.execution",
    "TrainConfig": "ncen_tf.train.config",
    "TrainedRun": "ncen_tf.train.training",
    "build_ensemble": "ncen_tf.ensembles.ensemble",
    "diagnose_runs": "ncen_tf.train.diagnostics",
    "evaluate": "ncen_tf.attack.evaluation",
    "evaluate_saved": "ncen_tf.attack.evaluation",
    "export_ensemble": "ncen_tf.export.export",
    "format_tables": "ncen_tf.tables.formats",
    "load_data": "ncen_tf.data.dataset",
    "load_ensemble": "ncen_tf.export.loading",
    "load_suite": "ncen_tf.attack.suites",
    "measure_transfer": "ncen_tf.transfer.run",
    "open_run": "ncen_tf.train.training",
    "open_target": "ncen_tf.targets.opening",
    "plot_parameter_map": "ncen_tf.tables.parameter_map",
    "read_grid": "ncen_tf.sweep.grid",
    "read_results": "ncen_tf.tables.results_frame",
    "results_page": "ncen_tf.tables.formats",
    "train_ensemble": "ncen_tf.train.training",
    "verify_export": "ncen_tf.export.export",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
