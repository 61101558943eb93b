"""The page of an experiment: question, command, tables of every dataset, plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from recbole_kuaiformer.benchmarks import comparison_tables
from recbole_kuaiformer.benchmarks.comparison_summary import by_dataset
from recbole_kuaiformer.benchmarks.experiment_plan import Experiment

Rows = list[dict[str, Any]]


def page(rows: Rows, *, experiment: Experiment, command: str, plots: Sequence[Path]) -> str:
    """Markdown; what it all says is for the reader of the tables to add.

    Args:
        rows: of all runs, failed ones too.
        experiment: what they are runs of.
        command: that made them.
        plots: files beside the page.
    """
    parts = [f"# {experiment.title}", f"**Question.** {experiment.question}", _protocol(experiment)]
    parts += ["**Command.**", f"```\n{command}\n```", _runs(experiment)]
    for dataset, of_dataset in by_dataset(rows).items():
        text = comparison_tables.as_markdown(of_dataset, dataset=dataset, about="")
        parts.append(text.replace("\n## ", "\n### ").replace("# ", "## ", 1).strip())
        parts += [
            f"![{dataset}]({plot.name})" for plot in plots if plot.stem in (dataset, f"{dataset}-curves")
        ]
    return "\n\n".join(parts) + "\n"


def _protocol(experiment: Experiment) -> str:
    seeds = ", ".join(map(str, experiment.seeds))
    bound = f" At most {experiment.max_epochs} epochs." if experiment.max_epochs else ""
    return (
        "**Protocol.** `properties/comparison.yaml`: leave-one-out in order of time, ranked over the whole "
        "catalogue, the epoch chosen on the validation split; the two readings of history are never compared "
        f"with each other. Seeds {seeds}.{bound} Seconds are of training alone; what made the runs stands "
        "below each dataset's tables."
    )


def _runs(experiment: Experiment) -> str:
    held = {"common": dict(experiment.common)}
    held["datasets"] = {name: dict(given) for name, given in experiment.datasets.items()}
    held["runs"] = {name: dict(given) for name, given in experiment.runs.items()}
    text = yaml.safe_dump(held, sort_keys=False, default_flow_style=None, width=110)
    return f"**Settings** beside the defaults:\n\n```yaml\n{text}```"
