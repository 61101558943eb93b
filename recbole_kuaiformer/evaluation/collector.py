"""Top-k from an index → what RecBole's metrics read."""

from __future__ import annotations

from dataclasses import dataclass
from logging import getLogger
from typing import Any

import torch
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_kuaiformer.evaluation.gathering import GatheringCollector
from recbole_kuaiformer.index.base import NONE, Index
from recbole_kuaiformer.index.multi_interest import (
    Exclusions,
    best_scores,
    leave_out,
    retrieve,
    retrieve_readings,
)
from recbole_kuaiformer.index.ranks import count_above
from recbole_kuaiformer.index.torch_exact import TorchIndex
from recbole_kuaiformer.losses import processes

ROWS_AT_ONCE = 2048  # users searched together, however few a batch holds: FAISS wants many queries
SCORES_AT_ONCE = 2**24  # scores held while single rows are ranked in full
SAMPLED_USERS = 1024  # users on whom an approximate index is compared with the exact one


@dataclass(frozen=True)
class UserBatch:
    """What a trainer hands over in the scores' place; one of ``interests`` and ``scores`` is there.

    Attributes:
        interests: [B, K, D] vectors to search with.
        scores: [B, N], RecBole's way.
        excluded: for each reading the items that leave each row's ranking.
    """

    interests: Tensor | None
    scores: Tensor | None
    excluded: dict[str, Exclusions]


@dataclass(frozen=True)
class _Pending:
    """Users whose ranking is still to be searched."""

    interests: Tensor
    positives: Exclusions
    excluded: dict[str, Exclusions]


class RankingCollector(GatheringCollector):
    """RecBole's collector, fed by an index; for several readings of history at once.

    Users are gathered until ROWS_AT_ONCE are there. Rows in which equal scores meet (or in which fewer
    than k items are left) are ranked from their full score row by torch.topk, as RecBole ranks them: so the
    numbers are RecBole's there too.

    Args:
        config: RecBole's.
        readings: names, the one that counts first.
        rank_from: from this cut-off on ranks are counted, where no metric needs the lists; None for never.
        sampled_users: the first users of all processes, on whom an approximate index is
            compared with the exact one.
    """

    data_struct: Any

    def __init__(
        self,
        config: Any,
        *,
        readings: tuple[str, ...],
        rank_from: int | None,
        sampled_users: int = SAMPLED_USERS,
    ) -> None:
        super().__init__(config)
        self.sampled_users = sampled_users
        self.readings = readings
        self.structs = {name: DataStruct() for name in readings[1:]}
        self.k: int = max(self.topk)
        self.counts_ranks = (
            rank_from is not None and self.k >= rank_from and not self.register.need("rec.items")
        )
        self.index: Index | None = None
        self._said_short = False
        self.end()

    def begin(self, index: Index, items: Tensor) -> None:
        """Rank with this index over the item table [N, D] from now on."""
        self.index, self.items = index, items

    def end(self) -> None:
        """Forget the index and whatever was not ranked yet (an evaluation may have been broken off)."""
        self.index, self.items = None, None  # type: ignore[assignment]
        self._pending: list[_Pending] = []
        self._hits, self._possible = torch.zeros(2, self.k, dtype=torch.int64)
        self._n_sampled = 0
        for struct in (self.data_struct, *self.structs.values()):
            for key in [key for key in struct._data_dict if key.startswith("rec.") or key == "data.label"]:
                del struct[key]

    # ---- RecBole's seam ------------------------------------------------------------------------------

    def eval_batch_collect(
        self, scores_tensor: Any, interaction: Any, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """As RecBole's; a UserBatch is searched in the index, or ranked by its scores once per reading."""
        if not isinstance(scores_tensor, UserBatch):
            super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
        elif scores_tensor.interests is not None:
            self._gather(scores_tensor, positive_u=positive_u, positive_i=positive_i)
        else:
            self._collect_scores(scores_tensor, interaction, positive_u=positive_u, positive_i=positive_i)

    def get_data_struct(self) -> Any:
        """The struct of the first reading, complete; the others wait in ``other_structs``."""
        self._flush()
        shared = {key: v for key, v in self.data_struct._data_dict.items() if key.startswith("data.")}
        self.other_structs = {}
        mine = self.data_struct
        for name, struct in self.structs.items():
            struct._data_dict.update(shared)
            self.data_struct = struct
            self.other_structs[name] = super().get_data_struct()
        self.data_struct = mine
        return super().get_data_struct()

    def index_recall(self) -> dict[str, float]:
        """Share of the exact top-k an approximate index found, on a sample of users; {} if it is exact."""
        counts = torch.stack([self._hits, self._possible]).to(self.device)
        hits, possible = processes.total(counts).cpu()
        if not possible.any():  # exact, in every process
            return {}
        recall = hits.cumsum(0) / possible.cumsum(0).clamp(min=1)
        places = self.config["metric_decimal_place"]
        return {f"index_recall@{k}": round(float(recall[k - 1]), places) for k in self.topk}

    # ---- RecBole's way -------------------------------------------------------------------------------

    def _collect_scores(
        self, batch: UserBatch, interaction: Any, *, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        mine = self.data_struct
        for name in self.readings:
            scores, excluded = batch.scores, batch.excluded.get(name)
            if excluded is not None:
                scores = scores.clone()  # type: ignore[union-attr]
                scores[excluded.rows, excluded.item_ids] = -torch.inf
            self.data_struct = self.structs.get(name, mine)
            super().eval_batch_collect(scores, interaction, positive_u, positive_i)
        self.data_struct = mine

    # ---- by index ------------------------------------------------------------------------------------

    def _gather(self, batch: UserBatch, *, positive_u: Tensor, positive_i: Tensor) -> None:
        device = batch.interests.device  # type: ignore[union-attr]
        positives = Exclusions.of(positive_u.to(device), positive_i.to(device))
        self._pending.append(_Pending(batch.interests, positives, batch.excluded))  # type: ignore[arg-type]
        if sum(len(one.interests) for one in self._pending) >= ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        users = _joined(self._pending)
        self._pending = []
        n_positives = users.positives.counts(len(users.interests))
        readings = tuple(users.excluded.get(name) for name in self.readings)
        if self.counts_ranks and self.index.is_exact and int(n_positives.max()) == 1:  # type: ignore[union-attr]
            hits = [self._hits_by_rank(users, excluded) for excluded in readings]
            lists: list[Tensor | None] = [None] * len(hits)
        else:
            lists = [*self._lists(users, readings)]
            hits = [users.positives.contains(ids) for ids in lists]  # type: ignore[arg-type]
        for name, excluded, ids, hit in zip(self.readings, readings, lists, hits):
            struct = self.structs.get(name, self.data_struct)
            if self.register.need("rec.items"):
                struct.update_tensor("rec.items", self._filled(users, ids, excluded))  # type: ignore[arg-type]
            if self.register.need("rec.topk"):
                struct.update_tensor("rec.topk", torch.cat([hit, n_positives[:, None]], dim=1).int())
            if self.register.need("rec.meanrank"):
                struct.update_tensor("rec.meanrank", self._mean_ranks(users, excluded))

    def _lists(self, users: _Pending, readings: tuple[Exclusions | None, ...]) -> list[Tensor]:
        index = self.index
        one_more = 1 if index.is_exact else 0  # type: ignore[union-attr]  # shows a tie at the last place
        found = retrieve_readings(index, users.interests, k=self.k + one_more, readings=readings)  # type: ignore[arg-type]
        if not index.is_exact:  # type: ignore[union-attr]
            self._sample(users, readings[0], found[0].item_ids)
            return [result.item_ids for result in found]
        lists = []
        for result, excluded in zip(found, readings):
            ids = result.item_ids[:, : self.k].contiguous()
            tied = (result.scores[:, 1:] == result.scores[:, :-1]).any(1).nonzero().flatten()
            ids[tied] = self._by_full_row(users, tied, excluded)
            lists.append(ids)
        return lists

    def _filled(self, users: _Pending, ids: Tensor, excluded: Exclusions | None) -> Tensor:
        """Lists that an approximate index left short, filled up with the best items it missed.

        For metrics that count what is recommended: they would take a gap for an item.
        """
        short = (ids == NONE).any(1).nonzero().flatten()
        if len(short) == 0 or self.index.is_exact:  # type: ignore[union-attr]
            return ids
        if not self._said_short:
            self._said_short = True
            name = self.index.description  # type: ignore[union-attr]
            getLogger().warning(
                f"{name}: the lists of some users are short; for coverage and the like they are filled up "
                "from the exact ranking (a higher nprobe or efSearch finds more)"
            )
        ids = ids.clone()
        for row, exact in zip(short.tolist(), self._by_full_row(users, short, excluded)):
            found = ids[row][ids[row] != NONE]
            missed = exact[~torch.isin(exact, found)]
            ids[row] = torch.cat([found, missed])[: self.k]
        return ids

    def _hits_by_rank(self, users: _Pending, excluded: Exclusions | None) -> Tensor:
        rows, item_ids = users.positives.rows, users.positives.item_ids
        above, equal = count_above(
            self.items, users.interests, rows=rows, item_ids=item_ids, excluded=excluded
        )
        hits = torch.zeros(len(users.interests), self.k, dtype=torch.bool, device=rows.device)
        inside = above < self.k
        hits[rows[inside], above[inside]] = True
        tied = rows[inside & (equal > 0)]
        hits[tied] = users.positives.of_rows(tied).contains(self._by_full_row(users, tied, excluded))
        return hits

    def _by_full_row(self, users: _Pending, rows: Tensor, excluded: Exclusions | None) -> Tensor:
        """Ids [R, k] as RecBole ranks them: torch.topk over the row's scores, −inf where left out."""
        if len(rows) == 0:
            return torch.zeros(0, self.k, dtype=torch.int64, device=rows.device)
        return torch.cat(
            [
                self._full_scores(users, part, excluded).topk(self.k).indices
                for part in rows.split(max(1, SCORES_AT_ONCE // len(self.items)))
            ]
        )

    def _full_scores(self, users: _Pending, rows: Tensor, excluded: Exclusions | None) -> Tensor:
        scores = best_scores(users.interests[rows], self.items)
        leave_out(scores, None if excluded is None else excluded.of_rows(rows))
        return scores

    def _mean_ranks(self, users: _Pending, excluded: Exclusions | None) -> Tensor:
        """RecBole's rec.meanrank [B, 3]: sum of the positives' average ranks, ranked items, positives."""
        rows, n_rows = users.positives.rows, len(users.interests)
        above, equal = count_above(
            self.items, users.interests, rows=rows, item_ids=users.positives.item_ids, excluded=excluded
        )
        ranks = 1 + above + equal / 2
        sums = torch.zeros(n_rows, device=rows.device).index_add(0, rows, ranks.float())
        ranked = torch.full_like(sums, len(self.items) - 1)
        if excluded is not None:
            ranked -= excluded.counts(n_rows)
        return torch.stack([sums, ranked, users.positives.counts(n_rows).float()], dim=1)

    def _sample(self, users: _Pending, excluded: Exclusions | None, item_ids: Tensor) -> None:
        """Compare the first users met with the exact answer: |found ∩ exact| within the first k, each k."""
        left = self.sampled_users - self.rows_before - self._n_sampled
        room = min(left, len(users.interests))
        if room <= 0:
            return
        rows = torch.arange(room, device=item_ids.device)
        theirs = None if excluded is None else excluded.of_rows(rows)
        oracle = TorchIndex(self.items)
        exact = retrieve(oracle, users.interests[:room], k=self.k, excluded=theirs).item_ids
        ascending, order = exact.sort(dim=1)
        place = torch.searchsorted(ascending, item_ids[:room].contiguous()).clamp(max=self.k - 1)
        same = (ascending.gather(1, place) == item_ids[:room]) & (item_ids[:room] > 0)
        # An item counts at every k that its places in both lists lie within.
        both = torch.maximum(order.gather(1, place), torch.arange(self.k, device=order.device))
        self._hits += torch.bincount(both[same], minlength=self.k).cpu()
        self._possible += (exact > 0).sum(0).cpu()
        self._n_sampled += room


def _joined(parts: list[_Pending]) -> _Pending:
    offsets = torch.tensor([0, *(len(part.interests) for part in parts)]).cumsum(0).tolist()
    return _Pending(
        torch.cat([part.interests for part in parts]),
        _stacked([part.positives for part in parts], offsets),
        {name: _stacked([part.excluded[name] for part in parts], offsets) for name in parts[0].excluded},
    )


def _stacked(parts: list[Exclusions], offsets: list[int]) -> Exclusions:
    return Exclusions(
        torch.cat([part.rows + offset for part, offset in zip(parts, offsets)]),
        torch.cat([part.item_ids for part in parts]),
    )
