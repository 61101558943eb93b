"""The rank of every test user's target, in the very ranking that the metrics were taken from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recbole_kuaiformer.config import READINGS

Floats = npt.NDArray[np.float64]


class Noting:
    """Mixed into a trainer: ``evaluate`` keeps who was ranked, and what the metrics were computed from.

    After it ``users`` and ``targets`` [U] are ids, and ``structs`` holds RecBole's DataStruct of each
    reading, in the order of the result's.
    """

    config: Any
    evaluator: Any

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As the trainer's own."""
        recbole: Any = super()
        self.structs: list[Any] = []
        self._users: list[Tensor] = []
        self._targets: list[Tensor] = []
        self.evaluator = _NotingEvaluator(self.evaluator, self.structs)
        try:
            return recbole.evaluate(*args, **kwargs)
        finally:
            self.evaluator = self.evaluator.inner

    def _full_sort_batch_eval(self, batched_data: Any) -> Any:
        recbole: Any = super()
        interaction, scores, positive_u, positive_i = recbole._full_sort_batch_eval(batched_data)
        users = interaction[self.config["USER_ID_FIELD"]].cpu()
        self._users.append(users[positive_u.cpu()])
        self._targets.append(positive_i.cpu())
        return interaction, scores, positive_u, positive_i

    @property
    def users(self) -> Tensor:
        """User of each target, [P]."""
        return torch.cat(self._users)

    @property
    def targets(self) -> Tensor:
        """Every target, [P], in the order of the rows."""
        return torch.cat(self._targets)


class _NotingEvaluator:
    def __init__(self, inner: Any, structs: list[Any]) -> None:
        self.inner, self._structs = inner, structs

    def evaluate(self, struct: Any) -> Any:
        self._structs.append(struct)
        return self.inner.evaluate(struct)


def ranks_of(hits: Tensor, mean_ranks: Tensor) -> Tensor:
    """Rank from 1 of each row's one target, [U].

    Within the deepest cut-off it is the place in the list that the metrics saw, whatever equal scores did
    there; beyond it 1 + the items above, and half of those that score the same.

    >>> hits = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 1]])
    >>> ranks_of(hits, torch.tensor([[2.5, 9.0, 1.0], [5.5, 9.0, 1.0]])).tolist()
    [2, 5]

    Args:
        hits: RecBole's rec.topk [U, k+1]: whether each place holds the target; last, how many targets.
        mean_ranks: RecBole's rec.meanrank [U, 3]: the target's average rank first.
    """
    places = hits[:, :-1].bool()
    k = places.shape[1]
    inside = places.int().argmax(1) + 1
    beyond = mean_ranks[:, 0].floor().long().clamp(min=k + 1)
    return torch.where(places.any(1), inside, beyond)


def gini(items: Tensor, n_items: int) -> float:
    """RecBole's GiniIndex of the lists [U, k] of ids below ``n_items``: 0, all as often; near 1, few alone.

    The same value to rounding, without its Python loop over every item of every list.

    >>> gini(torch.tensor([[0, 1], [2, 3]]), 4), gini(torch.tensor([[1], [1], [1], [1]]), 4)
    (0.0, 0.75)
    """
    counts = items.flatten().bincount(minlength=n_items).sort().values.double()
    places = torch.arange(1, n_items + 1, dtype=torch.float64)
    return float(((2 * places - n_items - 1) * counts).sum() / counts.sum() / n_items)


@dataclass(frozen=True)
class UserRanks:
    """Ranks of test targets, one row for each user.

    Attributes:
        users: [U] tokens as in the data.
        items: [U] tokens of the targets.
        ranks: by reading of history [U], from 1; a reading that the model does not have is not there.
    """

    users: npt.NDArray[np.str_]
    items: npt.NDArray[np.str_]
    ranks: Mapping[str, npt.NDArray[np.int64]]

    def save(self, file: Path) -> None:
        """Write an .npz with ``user``, ``item`` and, where they are there, ``kept`` and ``masked``."""
        arrays: dict[str, Any] = {"user": self.users, "item": self.items, **self.ranks}
        np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, file: Path) -> UserRanks:
        """What ``save`` wrote; nothing in the file is executed.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is cut off, corrupt, or no file of ranks.
        """
        try:
            with np.load(file, allow_pickle=False) as held:
                ranks = {name: held[name] for name in READINGS if name in held}
                return cls(held["user"], held["item"], ranks)
        except FileNotFoundError:
            raise
        except Exception as error:  # of numpy, zipfile or zlib, of many kinds
            raise ValueError(f"no ranks of users: {type(error).__name__}: {error}") from error


def hit(ranks: npt.NDArray[np.int64], *, k: int) -> Floats:
    """1 for each target among the first k, else 0."""
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: npt.NDArray[np.int64], *, k: int) -> Floats:
    """1 / log2(1 + rank) for each target among the first k, else 0."""
    return np.where(ranks <= k, 1 / np.log2(1 + ranks), 0.0)


def reciprocal(ranks: npt.NDArray[np.int64], *, k: int) -> Floats:
    """1 / rank for each target among the first k, else 0."""
    return np.where(ranks <= k, 1 / ranks, 0.0)


OF_A_USER = {"recall": hit, "hit": hit, "ndcg": ndcg, "mrr": reciprocal}  # with one target a user


def by_reading(result: Mapping[str, Any], *, first: str) -> Iterator[tuple[str, str, float]]:
    """(reading, metric, value) of an evaluation's result, whose first reading goes without its name.

    >>> [*by_reading({"recall@5": 0.5, "recall@5_masked": 0.75}, first="kept")]
    [('kept', 'recall@5', 0.5), ('masked', 'recall@5', 0.75)]
    """
    for key, value in result.items():
        name, _, reading = key.rpartition("_")
        is_other = reading in READINGS and reading != first
        yield (reading, name, float(value)) if is_other else (first, key, float(value))
