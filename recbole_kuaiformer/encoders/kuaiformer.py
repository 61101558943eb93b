"""The KuaiFormer encoder: compressed history, Llama blocks, K query tokens per target."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn

from recbole_kuaiformer.encoders.alignment import turned_round
from recbole_kuaiformer.encoders.features import Attribute, AttributeEmbedding
from recbole_kuaiformer.encoders.item_compression import ItemCompression
from recbole_kuaiformer.layers.dropout import Dropout
from recbole_kuaiformer.layers.feed_forward import default_inner_size
from recbole_kuaiformer.layers.llama_block import LlamaBlock
from recbole_kuaiformer.layers.rms_norm import RMSNorm
from recbole_kuaiformer.layers.rope import rotation_table
from recbole_kuaiformer.layers.visibility import attention_bias, query_visibility

QueryInit = Literal["learned", "recent"]
CompressionEnd = Literal["oldest", "newest"]


class KuaiFormerEncoder(nn.Module):
    """Eq. 6–8 of KuaiFormer (arXiv 2411.10057v1), for P targets in one pass.

    The sequence is [group tokens | recent items | K queries for target 1 | … | K queries for target P].
    The queries of a target see all groups, the recent items before the target and the earlier queries
    of the same target; so its interests equal those of a separate pass over the history cut before it
    with the same groups. With P = 1 and the target after the last item this is the paper's model.

    Args:
        hidden_size: D. n_layers: Llama blocks. n_heads: H.
        inner_size: width of the feed-forward part; None for 8/3 D.
        n_interests: K query tokens.
        query_init: ``learned``; or ``recent``: learned vector + token of the r-th newest item seen.
        query_std: standard deviation of the learned vectors at the start; None for 1/√D, about 1 long.
        compression_groups: sizes of the groups, oldest first; empty is plain attention.
        recent_length: how many of the newest items are kept as they are.
        compression_block: most items of a group that see one another in the group layer.
        compression_ffn: whether the group layer has a feed-forward part.
        compression_end: ``oldest``; or ``newest``: the same layout counted from the newest item, the oldest
            ones kept as they are. Then every target must see the whole history (n_unseen = 0).
        request_gap: buckets of the seconds from the newest item that a target sees to the target itself.
            Their vector is added to the queries. None for none.
        hidden_dropout_prob: dropout on the residual stream. attn_dropout_prob: on attention weights.
    """

    def __init__(  # noqa: PLR0913 (one argument for each hyper-parameter of the paper)
        self,
        hidden_size: int,
        *,
        n_layers: int,
        n_heads: int,
        inner_size: int | None,
        n_interests: int,
        query_init: QueryInit,
        query_std: float | None,
        compression_groups: tuple[int, ...],
        recent_length: int,
        compression_block: int,
        compression_ffn: bool,
        compression_end: CompressionEnd,
        hidden_dropout_prob: float,
        attn_dropout_prob: float,
        request_gap: Attribute | None = None,
    ) -> None:
        super().__init__()
        inner_size = inner_size or default_inner_size(hidden_size)
        shared = {
            "n_heads": n_heads,
            "hidden_dropout_prob": hidden_dropout_prob,
            "attn_dropout_prob": attn_dropout_prob,
        }
        self.head_size = hidden_size // n_heads
        self.n_interests = n_interests
        self.query_init = query_init
        self.groups = compression_groups
        self.recent_length = recent_length
        self.compression_end = compression_end
        self.dropout = Dropout(hidden_dropout_prob)
        query_std = hidden_size**-0.5 if query_std is None else query_std
        self.queries = nn.Parameter(torch.randn(n_interests, hidden_size) * query_std)
        self.gaps = None if request_gap is None else AttributeEmbedding(request_gap, size=hidden_size)
        if self.gaps is not None:  # no larger than what it is added to
            nn.init.normal_(self.gaps.table.weight, std=query_std)
        self.compression = (
            ItemCompression(
                hidden_size,
                inner_size=inner_size if compression_ffn else 0,
                block=compression_block,
                **shared,  # type: ignore[arg-type]
            )
            if compression_groups
            else None
        )
        self.blocks = nn.ModuleList(
            LlamaBlock(hidden_size, inner_size=inner_size, **shared)  # type: ignore[arg-type]
            for _ in range(n_layers)
        )
        self.norm = RMSNorm(hidden_size)

    def forward(
        self,
        tokens: Float[Tensor, "B L D"],
        *,
        valid: Bool[Tensor, "B L"],
        n_unseen: Int[Tensor, "B P"],
        times: Int64[Tensor, "B L"] | None = None,
        request_times: Int64[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B P K D"]:
        """K interests for each target: the outputs at its query tokens (Eq. 8).

        Args:
            tokens: item tokens aligned to the right, newest last; at most as many as the layout holds.
            valid: True where the token is an item.
            n_unseen: how many of the newest items the target must not see; less than the recent items. With
                ``request_gap`` the target is the first of them, or comes after all.
            times: of each item, in seconds since any moment; needed with ``request_gap``.
            request_times: of what comes after all items; needed with ``request_gap``.

        Raises:
            ValueError: times are needed and not given.
        """
        history, history_valid = self._compress(self.dropout(tokens), valid=valid)
        n_seen = history.shape[1] - n_unseen
        queries = self._queries(history, valid=history_valid, n_seen=n_seen)
        if self.gaps is not None:
            if times is None or request_times is None:
                raise ValueError("request_gap: the times of items and request are needed, and not given")
            seconds = gaps_to_targets(times, request_times, valid=valid, n_unseen=n_unseen)
            queries = queries + self.gaps(seconds)[:, :, None].to(queries.dtype)
        bias = attention_bias(query_visibility(history_valid, n_seen=n_seen, n_queries=self.n_interests))
        rotation = rotation_table(
            self._positions(n_seen, n_tokens=history.shape[1]), head_size=self.head_size
        )
        sequence = torch.cat([history, queries.flatten(1, 2)], dim=1)
        *lower, last = self.blocks
        for block in lower:
            sequence = block(sequence, bias=bias, rotation=rotation)
        # Nothing reads the history after the last block: there its tokens are keys and values only.
        outputs = last(sequence, bias=bias[:, :, history.shape[1] :], rotation=rotation)
        return self.norm(outputs).unflatten(1, (-1, self.n_interests))  # type: ignore[no-any-return]

    def _compress(
        self, tokens: Float[Tensor, "B L D"], *, valid: Bool[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B T D"], Bool[Tensor, "B T"]]:
        n_old = max(tokens.shape[1] - self.recent_length, 0)
        if n_old == 0 or self.compression is None:
            return tokens, valid
        if self.compression_end == "newest":
            tokens = turned_round(tokens, valid=valid)
        sizes = self._sizes_covering(n_old)
        groups, filled = self.compression(tokens[:, :n_old], valid=valid[:, :n_old], sizes=sizes)
        history = torch.cat([groups, tokens[:, n_old:]], dim=1)
        is_there = torch.cat([filled, valid[:, n_old:]], dim=1)
        if self.compression_end == "newest":
            history = turned_round(history, valid=is_there)
        return history, is_there

    def _sizes_covering(self, n_old: int) -> tuple[int, ...]:
        covered = 0
        for start in range(len(self.groups) - 1, -1, -1):
            covered += self.groups[start]
            if covered >= n_old:
                return self.groups[start:]
        raise ValueError(
            f"a history of {n_old + self.recent_length} items does not fit compression_groups "
            f"{list(self.groups)} and recent_length {self.recent_length}"
        )

    def _queries(
        self, history: Float[Tensor, "B T D"], *, valid: Bool[Tensor, "B T"], n_seen: Int[Tensor, "B P"]
    ) -> Float[Tensor, "B P K D"]:
        learned = self.queries.expand(*n_seen.shape, -1, -1)
        if self.query_init == "learned":
            return learned
        n_groups = max(history.shape[1] - self.recent_length, 0)
        rows = torch.arange(history.shape[0], device=n_seen.device)[:, None, None]
        columns = n_seen[:, :, None] - 1 - torch.arange(self.n_interests, device=n_seen.device)
        is_item = (columns >= n_groups) & valid[rows, columns.clamp(min=0)]
        return learned + history[rows, columns.clamp(min=0)] * is_item[..., None]

    def _positions(self, n_seen: Int[Tensor, "B P"], *, n_tokens: int) -> Int[Tensor, "B T"]:
        steps = torch.arange(self.n_interests, device=n_seen.device)
        of_history = torch.arange(n_tokens, device=n_seen.device).expand(n_seen.shape[0], -1)
        of_queries = (n_seen[:, :, None] + steps).flatten(1)  # position of the last item seen, + 1 + r
        return torch.cat([of_history, of_queries], dim=1)


def gaps_to_targets(
    times: Int64[Tensor, "B L"],
    request_times: Int64[Tensor, " B"],
    *,
    valid: Bool[Tensor, "B L"],
    n_unseen: Int[Tensor, "B P"],
) -> Float[Tensor, "B P"]:
    """Seconds from the newest item that a target sees to the target; NaN where it sees none.

    The target is the first item that it does not see, or comes after all at ``request_times``.

    >>> valid, n_unseen = torch.tensor([[False, True, True]]), torch.tensor([[0, 1, 2]])
    >>> times, request_times = torch.tensor([[0, 5, 7]]), torch.tensor([17])
    >>> gaps_to_targets(times, request_times, valid=valid, n_unseen=n_unseen).tolist()
    [[10.0, 2.0, nan]]
    """
    events = torch.cat([times, request_times[:, None]], dim=1)
    newest = (times.shape[1] - 1 - n_unseen).clamp(min=0)
    gaps = (events.gather(1, newest + 1) - events.gather(1, newest)).float()
    return gaps.masked_fill(~valid.gather(1, newest) | (n_unseen >= times.shape[1]), torch.nan)
