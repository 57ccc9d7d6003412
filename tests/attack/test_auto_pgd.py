"""Auto-PGD against the algorithm of the paper, one example at a time in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ncen_tf.attack.attack import Norm
from ncen_tf.attack.auto_pgd import AutoPgd, AutoPgdCrossEntropy, AutoPgdLogitRatio, checkpoints
from ncen_tf.attack.iterative import random_start
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.randomness import image_keys
from tests.attack.helpers import LinearTarget, images_and_predictions, linear_target, mean_probabilities

Array = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
LossOf = Callable[[Array64], float]

STEPS = 40
NORMS: list[tuple[Norm, float]] = [("Linf", 0.05), ("L2", 0.12)]


def cross_entropy(target: LinearTarget, label: int) -> LossOf:
    return lambda x: -np.log(mean_probabilities(target.logits64(x))[label])


def dlr(target: LinearTarget, label: int) -> LossOf:
    def loss(x: Array64) -> float:
        scores = np.log(mean_probabilities(target.logits64(x)))
        falling = np.sort(scores)[::-1]
        rival = np.delete(scores, label).max()
        return float((rival - scores[label]) / (falling[0] - falling[2]))

    return loss


def slope(loss: LossOf, x: Array64) -> Array64:
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-6
        gradient[index] = (loss(x + step) - loss(x - step)) / 2e-6
    return gradient


def project_onto_bound(x: Array64, clean: Array64, eps: float, norm: Norm) -> Array64:
    change = x - clean
    if norm == "Linf":
        change = np.clip(change, -eps, eps)
    else:
        change *= min(1.0, eps / float(np.linalg.norm(change)))
    return np.clip(clean + change, 0, 1)


def follow_the_paper(
    loss: LossOf, start: Array64, clean: Array64, eps: float, norm: Norm, steps: int
) -> tuple[Array64, int]:
    """Best image and how often the step was halved: Algorithm 1, alpha and rho 0.75."""
    p = [0.0, 0.22]
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    w = [int(np.ceil(round(share * steps, 9))) for share in p]
    eta, halvings = 2 * eps, 0
    x, before, best = start, start, start
    values, bests, etas = [loss(start)], [loss(start)], [eta]
    for k in range(steps - 1):
        gradient = slope(loss, x)
        up = np.sign(gradient) if norm == "Linf" else gradient / np.linalg.norm(gradient)
        z = project_onto_bound(x + eta * up, clean, eps, norm)
        a = 0.75 if k else 1.0
        x, before = project_onto_bound(x + a * (z - x) + (1 - a) * (x - before), clean, eps, norm), x
        values.append(loss(x))
        if values[-1] > loss(best):
            best = x
        if k + 1 in w:
            last = w[w.index(k + 1) - 1]
            rises = sum(values[i + 1] > values[i] for i in range(last, k + 1))
            first = last == 0
            stuck = not first and etas[-1] == eta and bests[-1] >= loss(best)
            etas.append(eta)
            bests.append(loss(best))
            if rises <= 0.75 * (k + 1 - last) or stuck:
                eta, x, halvings = eta / 2, best, halvings + 1
    return best, halvings


@pytest.mark.parametrize(("norm", "eps"), NORMS)
@pytest.mark.parametrize(
    ("attack", "loss_of"), [(AutoPgdCrossEntropy, cross_entropy), (AutoPgdLogitRatio, dlr)]
)
def test_examples_that_remain_correct_are_moved_as_the_paper_says(
    norm: Norm, eps: float, attack: type[AutoPgd], loss_of: Callable[[LinearTarget, int], LossOf]
) -> None:
    target = linear_target()
    images, labels = images_and_predictions(target, 60)
    found = attack(eps=eps, norm=norm, steps=STEPS)(
        Objective(target, "member_average"), images, labels, seed=3
    )
    starts = random_start(image_keys(images, f"{attack.name} {STEPS}", 3), 0, images, eps, norm)
    compared = halved = 0
    for image, label, start, ours in zip(images, labels, starts, found, strict=True):
        loss = loss_of(target, int(label))
        if mean_probabilities(target.logits64(ours.astype(float))).argmax() != label:
            continue
        best, halvings = follow_the_paper(loss, start.astype(float), image.astype(float), eps, norm, STEPS)
        np.testing.assert_allclose(ours, best, atol=4e-3)
        compared, halved = compared + 1, halved + halvings
    assert compared >= 20
    assert halved >= 3 * compared


def test_checkpoints_of_a_hundred_steps() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize(("norm", "eps"), NORMS)
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_the_authors_implementation_climbs_as_far(norm: Norm, eps: float, loss: str) -> None:
    """From the same starts, in PyTorch; theirs compares the first loss with 0 instead of the start's."""
    base = pytest.importorskip("pyautoattack.autopgd_base")
    torch = pytest.importorskip("torch")
    target = linear_target()
    images, labels = images_and_predictions(target, 60)

    def model(x: Any) -> Any:
        logits = torch.einsum("np,kpc->nkc", x.reshape(len(x), -1), torch.tensor(target.weights).float())
        return torch.log_softmax(logits, 2).logsumexp(1)

    attack = {"ce": AutoPgdCrossEntropy, "dlr": AutoPgdLogitRatio}[loss]
    starts = random_start(image_keys(images, f"{attack.name} 100", 5), 0, images, eps, norm)
    theirs = base.APGDAttack(model, n_iter=100, norm=norm, eps=eps, loss=loss, device="cpu")
    x, y = torch.tensor(images), torch.tensor(labels).long()
    theirs.init_hyperparam(x)
    best, right, _, _ = theirs.attack_single_run(x, y, torch.tensor(starts))
    objective = Objective(target, "ensemble")
    found = attack(eps=eps, norm=norm)(objective, images, labels, 5)
    ours_right = np.argmax(objective.log_probabilities(found), axis=1) == labels
    assert np.sum(ours_right != right.numpy()) <= 1
    both = ours_right & right.numpy()
    assert both.sum() >= 20
    loss_of = {"ce": cross_entropy, "dlr": dlr}[loss]
    ours, their = (
        [
            loss_of(target, int(y))(x.astype(float))
            for x, y in zip(np.asarray(end)[both], labels[both], strict=True)
        ]
        for end in (found, best)
    )
    np.testing.assert_allclose(ours, their, rtol=0.02)
