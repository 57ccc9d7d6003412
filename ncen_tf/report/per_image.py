"""A table with a row for each attacked image."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from ncen_tf.report.curve import RobustnessCurve
from ncen_tf.report.results import Outcomes, class_names_of


def per_image_table(outcomes: Outcomes, curves: Sequence[RobustnessCurve] = ()) -> pd.DataFrame:
    """Tabulate what each attack did to each image.

    Args:
        outcomes: Of the attacks of a report.
        curves: Of the same images, for their minimal distances.

    Returns:
        N rows with ``index`` (the number of the image among those attacked), ``label``, ``class``,
        ``clean_prediction``, ``clean_correct``, ``first_broken_by`` (an attack's name, norm and eps, or
        empty), ``clean_margin``, ``minimal_distance ...`` for each curve's norm (0 where the clean image is
        classified wrongly, missing where nothing broke it) and, for each attack, ``... attacked``,
        ``... prediction``, ``... l2`` and ``... linf``. The last three are missing where the attack was not
        run. A second attack of the same name, norm and eps has its number in the suite after these.
    """
    labels, clean = outcomes.labels, outcomes.clean
    first = np.full(len(labels), "", object)
    columns: dict[str, npt.NDArray[np.generic] | pd.Series] = {
        "index": np.arange(len(labels)),
        "label": labels,
        "class": class_names_of(labels, outcomes.class_names),
        "clean_prediction": clean,
        "clean_correct": clean == labels,
        "first_broken_by": first,
    }
    if outcomes.margins is not None:
        columns["clean_margin"] = outcomes.margins
    for curve in curves:
        columns[f"minimal_distance {curve.norm}"] = np.array(curve.distances, float)
    for number, attack in enumerate(outcomes.attacks, start=1):
        name = f"{attack.settings['attack']} {attack.settings['norm']} {attack.settings['eps']:g}"
        if f"{name} attacked" in columns:
            name += f" ({number})"
        broken = (clean == labels) & (attack.predictions != labels)
        first[broken & (first == "")] = name
        columns[f"{name} attacked"] = attack.attacked
        columns[f"{name} prediction"] = pd.Series(attack.predictions, dtype="Int32").where(attack.attacked)
        for size, values in (("l2", attack.l2), ("linf", attack.linf)):
            columns[f"{name} {size}"] = np.where(attack.attacked, values, np.float32(np.nan))
    return pd.DataFrame(columns)
