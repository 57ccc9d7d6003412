"""What was the same for all runs of an accuracy table, and how a caption says it."""

import dataclasses
from collections.abc import Iterable, Iterator

from ncen_tf.data.datasets import DATASETS
from ncen_tf.tables.experiments import WORST_CASE, AttackKey, Experiment, SuiteReport
from ncen_tf.tables.methods import describe_settings
from ncen_tf.tables.paper_cells import TABLE_OF_MEMBERS, TRAIN_EXAMPLES

PROTOCOLS = ("paper", "released", "strict")
"""Their order; others follow."""

# What the published tables can be put beside: the loss that the paper states, and its authors' code.
_COMPARABLE = (("paper", "member_average"), ("released", "stacked_softmax"))


@dataclasses.dataclass(frozen=True)
class Conditions:
    """Protocol, attacked images and training scale: what a table never mixes."""

    protocol: str
    objective: str
    attacked: str
    """Dataset whose test images are attacked."""
    examples: int
    cumulative: bool
    """Whether rows say what still stands after an attack and those before it."""
    attacks: tuple[AttackKey, ...]
    dataset: str
    """Dataset of training."""
    members: int
    train_examples: int
    epochs: int

    @classmethod
    def of(cls, experiment: Experiment, report: SuiteReport) -> "Conditions":
        return cls(
            report.protocol,
            report.objective,
            report.dataset,
            report.examples,
            report.cumulative,
            tuple(report.attacks),
            experiment.config.dataset,
            experiment.members,
            experiment.train_examples,
            experiment.config.epochs,
        )

    @property
    def rank(self) -> tuple[object, ...]:
        """Sorts tables: by dataset as the package lists them, then by members and scale."""
        values = dataclasses.astuple(dataclasses.replace(self, attacks=()))
        return list(DATASETS).index(self.dataset), self.members, self.train_examples, self.epochs, *values

    @property
    def attack_settings(self) -> str:
        """All attacks in their order: ``PGD Linf 0.1 (step_size 0.01, steps 40); ...``.

        Differs wherever the attacks do. Worst cases are left out, for they follow from the attacks.
        """
        attacks = "; ".join(_describe_one(key) for key in self.attacks if key.attack != WORST_CASE)
        return f"cumulative: {attacks}" if self.cumulative else attacks

    @property
    def comparable(self) -> bool:
        """Whether the paper's cells may stand beside what was measured."""
        return (self.protocol, self.objective) in _COMPARABLE and self.attacked == self.dataset

    @property
    def scaled(self) -> bool:
        """Whether training was longer or shorter than the paper's, or on more or fewer images."""
        paper = TRAIN_EXAMPLES.get(self.dataset), DATASETS[self.dataset].epochs
        return (self.train_examples, self.epochs) != paper

    def sentences(self) -> Iterator[str]:
        """Protocol, attacked images, attacks and training."""
        images = f"{self.examples:,} test images of {self.attacked} attacked"
        yield f"Protocol {self.protocol}, objective {self.objective}; {images}."
        yield f"Attacks: {'; '.join(_describe(self.attacks))}."
        if self.cumulative:
            yield "Rows: what still stands after the attack and those above it, at the same norm and eps."
        yield f"Trained on {self.train_examples:,} images of {self.dataset} for {self.epochs} epochs."

    def comparison(self) -> str:
        """What the paper's cells and the differences do and do not say."""
        sentence = (
            f"paper: AAE and ACE of Table {TABLE_OF_MEMBERS[self.members]}; diff.: measured minus published."
        )
        if not self.scaled:
            return sentence
        return (
            f"{sentence} The paper trained on {TRAIN_EXAMPLES[self.dataset]:,} images for "
            f"{DATASETS[self.dataset].epochs} epochs: levels are not comparable with its cells."
        )


def describe_hardware(trained: Iterable[str], attacked: Iterable[str] = ()) -> str:
    """The machines; those of attacks apart where they ran elsewhere."""
    training, attacks = ("; ".join(sorted(set(machines))) for machines in (trained, attacked))
    if attacks in ("", training):
        return training
    return f"trained on {training}; attacked on {attacks}"


def _describe_one(key: AttackKey) -> str:
    settings = describe_settings(key.settings)
    return f"{key.attack} {key.norm} {key.eps}" + (f" ({settings})" if settings else "")


def _describe(attacks: Iterable[AttackKey]) -> Iterator[str]:
    """``PGD (steps 40, step_size 0.1/0.15)`` for every attack; a worst case is one by its name."""
    settings: dict[str, dict[str, list[str]]] = {}
    for key in attacks:
        of_attack = settings.setdefault(key.attack, {})
        for name, text in key.settings:
            of_attack.setdefault(name, []).append(text)
    for attack, values in settings.items():
        if attack == WORST_CASE:
            yield "worst case: each example under its strongest attack of the same radius"
        else:
            texts = ", ".join(f"{name} {'/'.join(dict.fromkeys(texts))}" for name, texts in values.items())
            yield f"{attack} ({texts})" if texts else attack
