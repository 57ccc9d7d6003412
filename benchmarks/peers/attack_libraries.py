"""PGD and MI-FGSM of other packages, on the loss of the ensemble."""

import dataclasses
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from benchmarks.timing import Run
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.ensembles.penalties import log_mean_probabilities

Images = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Task:
    """What every side does.

    Args:
        attack: Name of the attack, which starts at the image itself: results with random starts differ.
        ensemble: Target; its loss is the cross-entropy of the mean probabilities.
        images: float32 [N, H, W, C] in [0, 1], one batch.
        labels: int32 [N].
        eps: Perturbation bound in Linf.
        step_size: Size of each step.
        steps: Number of gradient steps.
    """

    attack: Literal["PGD", "MI-FGSM"]
    ensemble: Ensemble
    images: Images
    labels: npt.NDArray[np.int32]
    eps: float
    step_size: float
    steps: int

    def log_probabilities(self, images: tf.Tensor) -> tf.Tensor:
        """Compute the log of the mean probabilities, eagerly, for packages for TensorFlow."""
        return log_mean_probabilities(self.ensemble.member_logits(images))


def cleverhans(task: Task) -> Run:
    """Attack with CleverHans."""
    from cleverhans.tf2.attacks.basic_iterative_method import basic_iterative_method
    from cleverhans.tf2.attacks.momentum_iterative_method import momentum_iterative_method

    method = basic_iterative_method if task.attack == "PGD" else momentum_iterative_method
    x, y = tf.constant(task.images), tf.constant(task.labels)
    settings = {"clip_min": 0.0, "clip_max": 1.0, "y": y, "sanity_checks": False}
    model = task.log_probabilities  # one object: CleverHans traces anew for another
    return lambda: method(model, x, task.eps, task.step_size, task.steps, np.inf, **settings).numpy()


def art(task: Task) -> Run:
    """Attack with the Adversarial Robustness Toolbox."""
    from art.attacks import evasion
    from art.estimators.classification import TensorFlowV2Classifier

    def model(images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return task.log_probabilities(images)

    classifier = TensorFlowV2Classifier(
        model=model,
        nb_classes=10,
        input_shape=task.images.shape[1:],
        loss_object=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0.0, 1.0),
    )
    method: Any = evasion.ProjectedGradientDescent
    settings: dict[str, Any] = {"eps": task.eps, "eps_step": task.step_size, "max_iter": task.steps}
    if task.attack == "MI-FGSM":
        method = evasion.MomentumIterativeMethod
        settings["decay"] = 1.0
    attack = method(classifier, batch_size=len(task.images), verbose=False, **settings)
    return lambda: attack.generate(task.images, task.labels)


def foolbox(task: Task) -> Run:
    """Attack with Foolbox."""
    import foolbox as fb

    x = tf.constant(task.images)
    model = fb.TensorFlowModel(task.log_probabilities, bounds=(0, 1), device=x.device)
    criterion = fb.criteria.Misclassification(tf.constant(task.labels, tf.int64))
    method: Any = fb.attacks.LinfPGD
    if task.attack == "MI-FGSM":
        method = fb.attacks.LinfMomentumIterativeFastGradientMethod
    attack = method(abs_stepsize=task.step_size, steps=task.steps, random_start=False)
    return lambda: attack.run(model, x, criterion, epsilon=task.eps).numpy()


def torchattacks(task: Task) -> Run:
    """Attack the same weights in PyTorch with torchattacks."""
    import torchattacks as ta

    from benchmarks.peers.torch_resnet import TorchEnsemble, copy_member, nchw, to_torch, torch_device

    members = [copy_member(member) for member in task.ensemble.members]
    model = TorchEnsemble(members).to(torch_device()).eval()
    settings: dict[str, Any] = {"eps": task.eps, "alpha": task.step_size, "steps": task.steps}
    if task.attack == "PGD":
        attack = ta.PGD(model, random_start=False, **settings)
    else:
        attack = ta.MIFGSM(model, decay=1.0, **settings)
    images, labels = nchw(task.images), to_torch(task.labels)
    return lambda: attack(images, labels).permute(0, 2, 3, 1).cpu().numpy()


LIBRARIES = {
    "CleverHans, eager, Keras": cleverhans,
    "ART, Keras": art,
    "Foolbox, Keras": foolbox,
    "torchattacks, PyTorch": torchattacks,
}
