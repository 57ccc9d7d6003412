"""A page of results in Markdown: what a person wrote, then every table."""

from collections.abc import Sequence

from ncen_tf.tables.accuracy_tables import accuracy_tables, protocols
from ncen_tf.tables.experiments import Experiment
from ncen_tf.tables.markdown import comparison_to_markdown, to_markdown
from ncen_tf.tables.protocol_comparison import protocol_comparisons
from ncen_tf.tables.table import Table
from ncen_tf.tables.training_tables import cost_tables, diagnostics_tables


def sections(experiments: Sequence[Experiment]) -> dict[str, list[Table]]:
    """All tables, by heading."""
    by_protocol = {f"Protocol {name}": accuracy_tables(experiments, name) for name in protocols(experiments)}
    return {
        **by_protocol,
        "Gradients on clean images": diagnostics_tables(experiments),
        "Cost of training": cost_tables(experiments),
    }


def to_page(experiments: Sequence[Experiment], preamble: str) -> str:
    """The preamble, protocols side by side, then the sections; the same records give the same page."""
    parts = [preamble.rstrip() + "\n"] if preamble.strip() else []
    if comparisons := protocol_comparisons(experiments):
        parts += ["## Protocols side by side\n", *(comparison_to_markdown(c, level=3) for c in comparisons)]
    for heading, tables in sections(experiments).items():
        parts += [f"## {heading}\n", *(to_markdown(table, level=3) for table in tables)]
    return "\n".join(parts)
