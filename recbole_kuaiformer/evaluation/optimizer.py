"""Adam and AdamW with what RecBole's configuration does not reach."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Adam, AdamW, Optimizer

ADAMS: dict[str, type[Adam] | type[AdamW]] = {"adam": Adam, "adamw": AdamW}


def adam(
    model: nn.Module,
    *,
    learner: str,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    fused: bool,
    decay_embeddings: bool,
) -> Optimizer:
    """The named member of ADAMS over the model's parameters.

    Args:
        model: what is trained.
        learner: a name in ADAMS.
        learning_rate: step size.
        weight_decay: of L2 with adam, decoupled with adamw.
        betas: decay of the two moment averages.
        fused: one kernel for a whole step; the same numbers up to rounding.
        decay_embeddings: False takes weight decay off embedding tables and one-dimensional parameters
            (norms, biases): a row that no batch touches would shrink all the same.
    """
    groups: Any = model.parameters() if decay_embeddings else _decayed_and_not(model)
    # fused=None, not False, leaves torch its choice between its other implementations.
    return ADAMS[learner](
        groups, lr=learning_rate, betas=betas, weight_decay=weight_decay, fused=fused or None
    )


def _decayed_and_not(model: nn.Module) -> list[dict[str, Any]]:
    tables = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for parameter in module.parameters(recurse=False)
    }
    apart = [p.ndim < 2 or id(p) in tables for p in model.parameters()]
    return [
        {"params": [p for p, is_apart in zip(model.parameters(), apart) if not is_apart]},
        {"params": [p for p, is_apart in zip(model.parameters(), apart) if is_apart], "weight_decay": 0.0},
    ]
