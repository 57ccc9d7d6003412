"""PGD-40 on one ensemble: through this package on ONNX and Keras, CleverHans as it comes, and ART.

python -m benchmarks.attack RUN EXPORT     (ART: pip install ncen-tf[art])
"""

import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from ncen_tf.attacks.basic_iterative import BasicIterative
from ncen_tf.attacks.objectives import Objective
from ncen_tf.data.loading import load_dataset
from ncen_tf.environment import describe_environment
from ncen_tf.models.ensemble import log_mean_probabilities
from ncen_tf.targets.opening import open_target

EPS, STEP, STEPS, IMAGES = 0.1, 0.01, 40, 50


def main(run: Path, export: Path) -> None:
    test = load_dataset("fashion_mnist_sample", test_examples=IMAGES).test
    images = (test.images / 255).astype(np.float32)
    x, y = tf.constant(images), tf.constant(test.labels)
    keras_target = open_target(run).target

    def prediction(z: tf.Tensor) -> tf.Tensor:
        return log_mean_probabilities(keras_target.member_logits(z))

    def ours(path: Path) -> object:
        objective = Objective(open_target(path).target, "ensemble")
        attack = BasicIterative(eps=EPS, steps=STEPS, step_size=STEP)
        return lambda: np.asarray(attack(objective, x, y, 0))

    def cleverhans() -> np.ndarray:
        from cleverhans.tf2.attacks.basic_iterative_method import basic_iterative_method

        settings = {"clip_min": 0.0, "clip_max": 1.0, "y": y, "sanity_checks": False}
        return basic_iterative_method(prediction, x, EPS, STEP, STEPS, np.inf, **settings).numpy()

    def art() -> np.ndarray:
        from art.attacks.evasion import ProjectedGradientDescent
        from art.estimators.classification import TensorFlowV2Classifier

        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        shape = {"nb_classes": 10, "input_shape": images.shape[1:], "clip_values": (0.0, 1.0)}

        def model(z: tf.Tensor, training: bool) -> tf.Tensor:
            return prediction(z)

        classifier = TensorFlowV2Classifier(model=model, loss_object=loss, **shape)
        settings = {"eps": EPS, "eps_step": STEP, "max_iter": STEPS, "batch_size": IMAGES, "verbose": False}
        return ProjectedGradientDescent(classifier, **settings).generate(images, test.labels)

    candidates = {
        "ncen_tf on ONNX": ours(export / "ensemble.onnx"),
        "ncen_tf on SavedModel": ours(export / "saved_model"),
        "ncen_tf on Keras": ours(run),
        "CleverHans as it comes, on Keras": cleverhans,
        "ART, TensorFlowV2Classifier, on Keras": art,
    }
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    robust = {}
    for _ in range(4):  # the first round traces and is not counted
        for name, attack in candidates.items():
            started = time.perf_counter()
            adversarial = attack()
            seconds[name].append(time.perf_counter() - started)
            robust[name] = float(np.mean(prediction(adversarial).numpy().argmax(1) == test.labels))
    print(f"BIM/PGD without random start, {STEPS} steps, eps {EPS}, {IMAGES} images, median of 3")
    for name, values in seconds.items():
        median = sorted(values[1:])[1]
        print(f"  {name:<42} {median:7.2f} s   first call {values[0]:6.2f} s   robust {robust[name]:.3f}")
    print(describe_environment())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
