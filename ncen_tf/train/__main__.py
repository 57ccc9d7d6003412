"""Train an ensemble: python -m ncen_tf.train --flagfile=configs/fmnist.cfg"""

import dataclasses
import logging
from pathlib import Path

from absl import flags

from ncen_tf import program
from ncen_tf.base.errors import InputError
from ncen_tf.data import location_flags
from ncen_tf.data.datasets import DATASETS
from ncen_tf.ensembles.structures import STRUCTURES, structure_architecture
from ncen_tf.train.config import (
    ADVERSARIAL_TRAININGS,
    ADVERSARY_LOSSES,
    PRECISIONS,
    REGULARIZERS,
    SCHEDULES,
    STRATEGIES,
    TrainingConfig,
    default_at_step_size,
)
from ncen_tf.workers.cluster import Cluster

logger = logging.getLogger("ncen_tf.train")

DATASET = flags.DEFINE_enum("dataset", "fashion_mnist", list(DATASETS), "what to train on")
flags.adopt_module_key_flags(location_flags)
TRAIN_EXAMPLES = flags.DEFINE_integer("train_examples", None, "class-balanced part to train on")
TEST_EXAMPLES = flags.DEFINE_integer("test_examples", None, "class-balanced part to measure on")

STRUCTURE = flags.DEFINE_enum("structure", "Ensemble1", STRUCTURES, "the paper's structures")
MEMBERS = flags.DEFINE_integer("members", 3, "members of the structure: 3, 4 or 5")
ARCHITECTURE = flags.DEFINE_list(
    "architecture", None, "members, e.g. resnet20,resnet20,resnet32; replaces --structure"
)

REGULARIZER = flags.DEFINE_enum("regularizer", "nce", REGULARIZERS, "penalty on how members relate")
LAMBDA_COS = flags.DEFINE_float("lambda_cos", None, "nce: weight of L_cos (default: the dataset's)")
LAMBDA_NORM = flags.DEFINE_float("lambda_norm", None, "nce: weight of L_norm (default: the dataset's)")
NCE_FORM = flags.DEFINE_enum("nce_form", "paper", ["paper", "released"], "formulas, or authors' code")
GAL_COEFFICIENT = flags.DEFINE_float("gal_coefficient", 0.5, "gal: weight of the coherence")
LAMBDA_DIV = flags.DEFINE_float("lambda_div", None, "gpmr: weight of L_div (default: the dataset's)")
LAMBDA_EQ = flags.DEFINE_float("lambda_eq", 10.0, "gpmr: weight of L_eq")
ADP_ALPHA = flags.DEFINE_float("adp_alpha", 2.0, "adp: weight of the entropy")
ADP_BETA = flags.DEFINE_float("adp_beta", 0.5, "adp: weight of the log diversity")
CE_ON = flags.DEFINE_enum("ce_on", "logits", ["logits", "probabilities"], "input of cross-entropy")

ADVERSARIAL_TRAINING = flags.DEFINE_enum(
    "adversarial_training", "none", ADVERSARIAL_TRAININGS, "train against an Linf adversary"
)
AT_EPS = flags.DEFINE_float("at_eps", None, "its radius, images in [0, 1] (default: the dataset's)")
AT_STEPS = flags.DEFINE_integer("at_steps", 10, "its gradient steps")
AT_STEP_SIZE = flags.DEFINE_float(
    "at_step_size", None, "of each step (default: 1.25 eps for one step, 2.5 eps / steps for more)"
)
AT_RANDOM_START = flags.DEFINE_bool("at_random_start", True, "start anywhere in the ball")
AT_LOSS = flags.DEFINE_enum(
    "at_loss", "ensemble", ADVERSARY_LOSSES, "one image against all, or one against each member"
)
AT_FRACTION = flags.DEFINE_float("at_fraction", 1.0, "part of each batch that is attacked")
TRADES_BETA = flags.DEFINE_float("trades_beta", 6.0, "trades: weight of the divergence")

INITIAL_RUN = flags.DEFINE_string(
    "initial_run",
    None,
    "begin with the weights of this run's ensemble, not with random ones; take another --seed",
)
EPOCHS = flags.DEFINE_integer("epochs", None, "passes over D and D_noise (default: the dataset's)")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "images a step, over all replicas")
LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-3, "Adam's initial rate")
SCHEDULE = flags.DEFINE_enum("schedule", "steps", SCHEDULES, "how the rate falls: in steps, or as a cosine")
DECAY_EVERY = flags.DEFINE_integer("decay_every", 15, "steps: epochs between divisions of the rate by 10")
MIN_LEARNING_RATE = flags.DEFINE_float("min_learning_rate", 1e-5, "floor of the rate")
CROP_PADDING = flags.DEFINE_integer("crop_padding", 4, "random crops shift images by up to this, in pixels")
NOISE_EPS = flags.DEFINE_float("noise_eps", None, "bound of D_noise (default: the dataset's)")
SEED = flags.DEFINE_integer("seed", 0, "initial weights, order, augmentation and noise")

PRECISION = flags.DEFINE_enum("precision", "float32", PRECISIONS, "Keras precision policy")
JIT_COMPILE = flags.DEFINE_bool("jit_compile", False, "compile loss and gradients with XLA")
DETERMINISTIC = flags.DEFINE_bool("deterministic", False, "only deterministic TensorFlow kernels")
STRATEGY = flags.DEFINE_enum("strategy", "auto", STRATEGIES, "auto mirrors over several devices")
VIRTUAL_DEVICES = flags.DEFINE_integer("virtual_devices", 1, "split the GPU or CPU into this many")
SYNC_BATCH_NORM = flags.DEFINE_bool("sync_batch_norm", False, "batch statistics over all replicas")

RUN_DIR = flags.DEFINE_string("run_dir", None, "folder of the run (default: runs/NAME)")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "delete an earlier run in the same folder")
CHECKPOINT_EVERY = flags.DEFINE_integer("checkpoint_every", 500, "steps between checkpoints")


def config_from_flags() -> TrainingConfig:
    """The run's settings, the dataset's defaults filled in.

    Raises:
        InputError: a value or combination that cannot work.
    """
    spec = DATASETS[DATASET.value]

    def default(value: float | None, fallback: float) -> float:
        return fallback if value is None else value

    at_eps, at_steps = default(AT_EPS.value, spec.at_eps), AT_STEPS.value

    return TrainingConfig(
        dataset=spec.name,
        architecture=tuple(ARCHITECTURE.value or structure_architecture(STRUCTURE.value, MEMBERS.value)),
        regularizer=REGULARIZER.value,
        lambda_cos=default(LAMBDA_COS.value, spec.lambda_cos),
        lambda_norm=default(LAMBDA_NORM.value, spec.lambda_norm),
        nce_form=NCE_FORM.value,
        ce_on=CE_ON.value,
        gal_coefficient=GAL_COEFFICIENT.value,
        lambda_div=default(LAMBDA_DIV.value, spec.lambda_div),
        lambda_eq=LAMBDA_EQ.value,
        adp_alpha=ADP_ALPHA.value,
        adp_beta=ADP_BETA.value,
        adversarial_training=ADVERSARIAL_TRAINING.value,
        at_eps=at_eps,
        at_steps=at_steps,
        at_step_size=default(AT_STEP_SIZE.value, default_at_step_size(at_eps, at_steps)),
        at_random_start=AT_RANDOM_START.value,
        at_loss=AT_LOSS.value,
        at_fraction=AT_FRACTION.value,
        trades_beta=TRADES_BETA.value,
        initial_run=INITIAL_RUN.value,
        train_examples=TRAIN_EXAMPLES.value,
        test_examples=TEST_EXAMPLES.value,
        epochs=int(default(EPOCHS.value, spec.epochs)),
        batch_size=BATCH_SIZE.value,
        learning_rate=LEARNING_RATE.value,
        schedule=SCHEDULE.value,
        decay_every=DECAY_EVERY.value,
        min_learning_rate=MIN_LEARNING_RATE.value,
        crop_padding=CROP_PADDING.value,
        noise_eps=default(NOISE_EPS.value, spec.noise_eps),
        seed=SEED.value,
        precision=PRECISION.value,
        jit_compile=JIT_COMPILE.value,
        deterministic=DETERMINISTIC.value,
        strategy=STRATEGY.value,
        virtual_devices=VIRTUAL_DEVICES.value,
        sync_batch_norm=SYNC_BATCH_NORM.value,
    )


def default_run_dir(config: TrainingConfig) -> Path:
    """runs/DATASET-REGULARIZER-MEMBERS-sSEED."""
    members = "+".join(name.removeprefix("resnet") for name in config.architecture)
    return Path("runs") / f"{config.dataset}-{config.regularizer}-{members}-s{config.seed}"


def main() -> int | None:
    config = config_from_flags()
    given = (field.name for field in dataclasses.fields(config) if flags.FLAGS[field.name].present)
    for name, reason in config.without_effect(given).items():
        logger.warning("--%s has no effect with %s", name, reason)
    if CHECKPOINT_EVERY.value < 1:
        raise InputError(f"--checkpoint_every is at least 1; got {CHECKPOINT_EVERY.value}.")
    cluster = Cluster.from_environment() if config.strategy == "multi_worker" else None
    path = Path(RUN_DIR.value) if RUN_DIR.value else default_run_dir(config)
    from ncen_tf.train.claim import claimed_run
    from ncen_tf.train.interrupt import InterruptedRunError
    from ncen_tf.train.run import train_ensemble
    from ncen_tf.train.strategy import set_up_tensorflow
    from ncen_tf.workers.connection import naming_lost_workers
    from ncen_tf.workers.loss import LostWorkerError, leave

    try:
        with (
            claimed_run(path, config, CHECKPOINT_EVERY.value, cluster, OVERWRITE.value) as run,
            naming_lost_workers(cluster),
        ):
            if run.is_complete:
                print(f"The run in {path} is complete: see {path / run.summary_file.name}.")
                return None
            # Devices first: reading a dataset uses them.
            strategy = set_up_tensorflow(config, cluster)
            dataset = location_flags.load_from_flags(
                config.dataset, config.train_examples, config.test_examples
            )
            show = cluster is None or cluster.is_chief
            summary = train_ensemble(config, dataset, run, strategy, CHECKPOINT_EVERY.value, show)
    except InterruptedRunError:
        print(f"Interrupted; the run is saved in {path}. The same command resumes it.")
        return program.INTERRUPTED
    except LostWorkerError as error:
        leave(str(error))
    members = ", ".join(f"{ace:.4f}" for ace in summary["test"]["member_ace"])
    print(
        f"ACE {summary['test']['ace']:.4f} on {summary['dataset']['test_examples']} test images "
        f"(members {members}).\nRun: {path}, how members relate: {run.plot_file.name}\n"
        f"Next: python -m ncen_tf.export --run={path} --out=exports/{path.name}"
    )
    return None


if __name__ == "__main__":
    program.run(main)
