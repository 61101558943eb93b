"""Quality against speed: all targets of a window in one pass, or a pass for each, as the paper trains."""

from __future__ import annotations

import sys
from typing import Any

import torch

from recbole_kuaiformer.benchmarks.running import PROGRESS
from recbole_kuaiformer.benchmarks.training_systems import System

Rows = list[dict[str, Any]]

# On a CPU the processor's seconds: those of the wall depend on what else the machine does meanwhile.
CLOCK = "seconds" if torch.cuda.is_available() else "cpu_seconds"
SAYS_AFTER = 60.0  # seconds of training between two lines about it

# ``last``: a window has one target, the one after its last item, and so every prefix is encoded by itself.
VARIANTS: dict[str, dict[str, Any]] = {
    "all": {"targets_per_window": None},
    "last": {"targets_per_window": None, "window_targets": 1},
}


class Run:
    """One variant in training; quality can be asked for at any time, and does not count as training."""

    def __init__(self, variant: str, *, case: dict[str, Any]) -> None:
        self.variant, self.seed = variant, case["seed"]
        given = {
            **VARIANTS[variant],
            "topk": [10, 50],
            "metrics": ["Recall", "NDCG"],
            **case.get("given", {}),
        }
        torch.manual_seed(case["seed"])
        self.system = System({**case, "given": given})
        self.seconds, self.targets, self.steps = 0.0, 0, 0

    @property
    def epochs(self) -> float:
        """Epochs trained so far."""
        return self.targets / len(self.system.train_data.dataset)

    def until(self, *, epochs: float = float("inf"), seconds: float = float("inf")) -> None:
        """Train till so many epochs or seconds of training are reached, whichever comes first."""
        last_step = epochs * len(self.system.train_data)
        while self.steps < last_step and self.seconds < seconds:
            trained = self.system.train(
                seconds=min(seconds - self.seconds, SAYS_AFTER),
                steps=None if last_step == float("inf") else round(last_step) - self.steps,
            )
            self.seconds += trained[CLOCK]
            self.targets += int(trained["targets"])
            self.steps += int(trained["steps"])
            self._say("trained")

    def row(self, at: str) -> dict[str, Any]:
        """What this run has reached, valid and test, and what it took."""
        trainer, system = self.system.trainer, self.system
        results = {}
        for split, data in (("valid", system.valid_data), ("test", system.test_data)):
            found = trainer.evaluate(data, load_best_model=False)
            results[split] = {name: float(value) for name, value in found.items()}
        self._say(f"test {results['test']}")
        facts = {"variant": self.variant, "seed": self.seed, "at": at}
        return {**facts, "epochs": self.epochs, "seconds": self.seconds, **results}

    def _say(self, what: str) -> None:
        where = f"seed {self.seed} {self.variant}: {self.epochs:.2f} epochs, {self.seconds:.0f} s"
        print(f"{PROGRESS}{where}, {what}", file=sys.stderr, flush=True)


def quality(case: dict[str, Any]) -> Rows:
    """Both variants of one seed after as many epochs, and each after the other one's seconds."""
    every, last = (Run(variant, case=case) for variant in ("all", "last"))
    every.until(epochs=case["epochs"])
    rows = [every.row("same epochs")]
    last.until(seconds=every.seconds)
    rows.append(last.row(f"seconds of {case['epochs']} epochs of all"))
    last.until(epochs=case["epochs"])
    rows.append(last.row("same epochs"))
    every.until(seconds=last.seconds)
    rows.append(every.row(f"seconds of {case['epochs']} epochs of last"))
    facts = {key: case[key] for key in ("system", "dataset", "length")}
    return [{**facts, **row} for row in rows]
