"""NCEn-TF: train, export and attack negative-correlation ensembles of image classifiers."""

from .attack.curve import robustness_curve as robustness_curve
from .attack.evaluation import evaluate as evaluate, evaluate_saved as evaluate_saved
from .attack.suites import Suite as Suite, load_suite as load_suite
from .base.errors import InputError as InputError
from .data.dataset import Dataset as Dataset, Split as Split
from .data.loading import load_data as load_data
from .ensembles.ensemble import Ensemble as Ensemble, build_ensemble as build_ensemble
from .ensembles.regularizers import (
    ADP as ADP,
    DVERGE as DVERGE,
    GAL as GAL,
    GPMR as GPMR,
    NCE as NCE,
    NCL as NCL,
    TRS as TRS,
    AdversarialTraining as AdversarialTraining,
)
from .export.export import export_ensemble as export_ensemble, verify_export as verify_export
from .export.manifest import Manifest as Manifest
from .report.curve import RobustnessCurve as RobustnessCurve
from .report.gate import Gate as Gate
from .report.results import Report as Report
from .sweep.execution import Sweep as Sweep
from .sweep.grid import read_grid as read_grid
from .sweep.records import CellRecord as CellRecord
from .tables.formats import format_tables as format_tables, results_page as results_page
from .tables.parameter_map import plot_parameter_map as plot_parameter_map
from .tables.results_frame import read_results as read_results
from .targets.interface import ModelInterface as ModelInterface
from .targets.opening import open_target as open_target
from .train.config import TrainConfig as TrainConfig
from .train.diagnostics import diagnose_runs as diagnose_runs
from .train.trained_run import (
    TrainedRun as TrainedRun,
    load_ensemble as load_ensemble,
    open_run as open_run,
)
from .train.training import train_ensemble as train_ensemble
from .train.weight_average import WeightAverage as WeightAverage
from .transfer.run import measure_transfer as measure_transfer

__all__: list[str]
__version__: str
