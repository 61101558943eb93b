"""Training options: what each gives in time and memory over training without it."""

from __future__ import annotations

from typing import Any

import torch

from recbole_kuaiformer.benchmarks import measuring
from recbole_kuaiformer.benchmarks.training_systems import System

Rows = list[dict[str, Any]]

PLAIN = "as it is"
ALL_AT_ONCE = 2**62
OPTIONS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "precision: bfloat16": {"precision": "bfloat16"},
    "fused_optimizer: True": {"fused_optimizer": True},
    "ema_decay: 0.999": {"ema_decay": 0.999},
    "mask_history: True": {"mask_history": True},
    "mask_known_positives: True": {"mask_known_positives": True},
    "softmax not in parts": {"scores_at_once": ALL_AT_ONCE},
    "compile_encoder: inductor": {"compile_encoder": "inductor"},
}


def options(case: dict[str, Any]) -> Rows:
    """Targets a second with each option, all in turn in one process, and the peak memory of a step.

    An option that fails is a row that says so. A compiled encoder is warmed up until the shapes of the
    batches no longer make it compile.
    """
    systems: dict[str, System] = {}
    failed: Rows = []
    for name in case["options"]:
        warm = _warm(name, case=case)
        if isinstance(warm, System):
            systems[name] = warm
        else:
            failed.append({**_place(case), "option": name, "failed": warm})
    speeds: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(case["rounds"]):
        for name, system in systems.items():
            trained = system.train(steps=case["steps"])
            speeds[name].append(trained["targets"] / trained["seconds"])
    rows = [
        {
            **_place(case),
            "option": name,
            "targets_per_second": speeds[name],
            "peak_mib": measuring.peak_mib(lambda system=system: system.train(steps=1)),  # type: ignore[misc]
        }
        for name, system in systems.items()
    ]
    return [*rows, *failed]


def _warm(name: str, *, case: dict[str, Any]) -> System | str:
    """A system that has trained some steps, or why it could not."""
    system = System({**case, "given": {**case.get("given", {}), **OPTIONS[name]}})
    torch.manual_seed(1)
    try:
        system.train(steps=case["warm_up"])
    except Exception as error:  # whatever a compiler raises
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return system


def _place(case: dict[str, Any]) -> dict[str, Any]:
    return {key: case[key] for key in ("system", "dataset", "length")}
