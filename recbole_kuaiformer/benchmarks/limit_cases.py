"""Distance from the limit: a training step against its bare matrix products, and where the rest goes."""

from __future__ import annotations

import re
import time
from typing import Any

from torch.profiler import ProfilerActivity, profile

from recbole_kuaiformer.benchmarks import flops, measuring
from recbole_kuaiformer.benchmarks.training_systems import LOADING, System

Rows = list[dict[str, Any]]

# Where the time of an operator goes: the first pattern found in its name or in the name of what calls it. An
# operator that calls none of these is element by element (backward of a norm included).
ELEMENTS = "element by element"
CATEGORIES = {
    "data loading": LOADING,
    "optimiser": r"^Optimizer\.",
    "attention": r"scaled_dot_product",
    "matrix products": r"^aten::(mm|addmm|bmm|baddbmm)$",
    "softmax and loss": r"softmax|logsumexp|nll_loss|cross_entropy",
    "norm": r"norm",
    "dropout and random": r"dropout|bernoulli|^aten::(rand|normal|uniform|exponential|multinomial)",
    "embedding and gather": r"embedding|index|gather|scatter|take|bincount",
    ELEMENTS: r"^aten::",
}
GAP = "Python and autograd"  # what no operator accounts for


def limit(case: dict[str, Any]) -> Rows:
    """One row: operations and seconds of real training steps, of their bare products, and a profile.

    The step is forward, backward and optimiser. ``share`` is what the bare products, each on its own,
    would take of it: the achieved operations a second over those of the products.
    """
    system = System(case)
    system.train(steps=case["steps"])
    batches = system.batches(case["steps"])
    system.model.train()

    def forward_and_backward() -> None:
        for batch in batches:
            system.model.calculate_loss(batch).backward()

    def steps() -> None:
        for batch in batches:
            system.trainer.optimizer.zero_grad()
            system.model.calculate_loss(batch).backward()
            system.trainer.optimizer.step()

    shapes = flops.products(forward_and_backward)
    taken: list[float] = []
    bare: list[float] = []
    for _ in range(case["rounds"]):  # in turn, so that a busy machine slows both
        taken += measuring.seconds(steps, repeats=1, warm_up=0)
        bare.append(flops.bare_seconds(shapes, repeats=case["repeats"]))
    operations = flops.counted(forward_and_backward)
    return [
        {
            **{key: case[key] for key in ("system", "dataset", "length", "steps")},
            "flops": operations,
            "flops_of_products": flops.flops_of(shapes),
            "step_seconds": taken,
            "bare_seconds": bare,
            "share": measuring.median(bare) / measuring.median(taken),
            "peak_flops_per_second": flops.peak(),
            "profile": profile_of(system, steps=case["steps"]),
        }
    ]


def profile_of(system: System, *, steps: int) -> dict[str, float]:
    """Seconds of a stretch of the training loop, data loading included, by category.

    What operators do not account for of the stretch's wall time is the interpreter's and autograd's; the
    profiler itself makes that, and every short operator, look larger than it is.
    """
    for _ in range(2):  # the first profile of a process pays for setting up the profiler
        with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
            start = time.perf_counter()
            system.train(steps=steps)
            wall = time.perf_counter() - start
    seconds = dict.fromkeys(CATEGORIES, 0.0)
    for event in profiler.events() or ():
        category = category_of(event)
        if category is not None:
            seconds[category] += event.self_cpu_time_total / 1e6
    return {**seconds, GAP: max(wall - sum(seconds.values()), 0.0)}


def category_of(event: Any) -> str | None:
    """The category of an event of the profiler; None for what is no operator, its time is in the gap."""
    names, at = [], event
    while at is not None:
        names.append(at.name)
        at = at.cpu_parent
    for category, pattern in CATEGORIES.items():
        among = names if category != ELEMENTS else names[:1]
        if any(re.search(pattern, name) for name in among):
            return category
    return None
