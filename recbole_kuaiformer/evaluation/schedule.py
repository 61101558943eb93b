"""The learning rate over the steps of a training."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

SCHEDULES = ("constant", "linear", "cosine")


def recompute(scheduler: LambdaLR) -> None:
    """Set the rates of the step to come again, after what they depend on has changed."""
    rates = [
        base * share(scheduler.last_epoch) for base, share in zip(scheduler.base_lrs, scheduler.lr_lambdas)
    ]
    for group, rate in zip(scheduler.optimizer.param_groups, rates):
        group["lr"] = rate
    scheduler._last_lr = rates


def factor(step: int, *, name: str, warmup_steps: int, n_steps: int, floor: float) -> float:
    """What the learning rate is multiplied with at an optimiser step, counted from 0.

    It rises in equal parts to 1 at the last of ``warmup_steps``, and falls from 1 at the step after to what
    would be ``floor`` at step ``n_steps``, the first one past the training.

    >>> [factor(s, name="linear", warmup_steps=2, n_steps=6, floor=0.0) for s in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if name == "constant":
        return 1.0
    done = min(1.0, (step - warmup_steps) / max(1, n_steps - warmup_steps))
    left = 1 - done if name == "linear" else (1 + math.cos(math.pi * done)) / 2
    return floor + (1 - floor) * left


def schedule(
    optimizer: Optimizer,
    *,
    name: str,
    warmup_steps: int,
    n_steps: Callable[[], int],
    floor: float,
    first_step: int,
) -> LambdaLR:
    """Torch's scheduler over ``factor``, to be stepped after each step of the optimiser.

    Closed form, so that a training resumed at ``first_step`` with more epochs follows the longer schedule
    from there on (torch's chained schedulers carry their old length along in their state).

    Args:
        optimizer: whose rates are scheduled.
        name: one of SCHEDULES.
        warmup_steps: see ``factor``.
        n_steps: asked at every step, since a bound on time makes it known only as training goes on.
        floor: see ``factor``.
        first_step: where training goes on.
    """
    return LambdaLR(
        optimizer,
        lambda step: factor(
            first_step + step, name=name, warmup_steps=warmup_steps, n_steps=n_steps(), floor=floor
        ),
    )
