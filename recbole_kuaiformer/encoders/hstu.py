"""HSTU: gated, softmax-free attention that knows times (arXiv 2402.17152); one vector, or K query tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn

from recbole_kuaiformer.encoders.alignment import left_columns
from recbole_kuaiformer.layers.hstu_block import HSTUBlock, Relation, time_buckets
from recbole_kuaiformer.layers.visibility import causal_visibility

ROOM = 11  # what the published runs add to the length: n of 200 items is 211; as many queries fit behind it
QueryInit = Literal["learned", "recent"]


class HSTUEncoder(nn.Module):
    """HSTU's blocks over √D · token + position; u = output at the last item seen, all targets in one pass.

    The bias of row i takes the time of the event after item i. For a history's last row that is the time
    of the request, with ``use_request_time``; without it the last item's own time is repeated. Then the
    last row of each target differs from the same item's row for later targets: it is a row of its own,
    which no other sees, beside the history's. So it is without times where a history has one target, but in
    training (dropout would draw otherwise than before): nothing else is needed of the last block then.

    With ``n_interests`` K query tokens follow the last item that a target sees, at the time of what comes
    after it, and the outputs at these are its interests, as in KuaiFormer (Eq. 6 to 8). The published model
    has none.

    Args:
        hidden_size: D.
        n_layers: blocks. n_heads: heads of each.
        qk_size: width of a head's queries and keys. value_size: of its values and gates.
        max_length: L; attention is divided by the constant L + 11.
        use_times: whether the bias has a part for time differences.
        use_request_time: whether the time of the request is known.
        dropout_prob: dropout on the input and on what each block adds.
        n_interests: K query tokens, 11 at most; None for the output at the last item.
        query_init: ``learned``; or ``recent``: learned + the r-th newest item as it enters the blocks.
        query_std: standard deviation of the learned vectors at the start; None for 1/√D, about 1 long.
    """

    def __init__(  # noqa: PLR0913 (one argument for each hyper-parameter of the paper)
        self,
        hidden_size: int,
        *,
        n_layers: int,
        n_heads: int,
        qk_size: int,
        value_size: int,
        max_length: int,
        use_times: bool,
        use_request_time: bool,
        dropout_prob: float,
        n_interests: int | None = None,
        query_init: QueryInit = "learned",
        query_std: float | None = None,
    ) -> None:
        super().__init__()
        self.use_times, self.use_request_time = use_times, use_request_time
        self.n_interests, self.query_init = n_interests, query_init
        self.positions = nn.Parameter(torch.randn(max_length, hidden_size) * hidden_size**-0.5)
        self.dropout = nn.Dropout(dropout_prob)
        self.blocks = nn.ModuleList(
            HSTUBlock(
                hidden_size,
                n_heads=n_heads,
                qk_size=qk_size,
                value_size=value_size,
                n=max_length + ROOM,
                use_times=use_times,
                dropout_prob=dropout_prob,
            )
            for _ in range(n_layers)
        )
        std = hidden_size**-0.5 if query_std is None else query_std
        self.queries = nn.Parameter(torch.randn(n_interests, hidden_size) * std) if n_interests else None

    def forward(
        self,
        tokens: Float[Tensor, "B L D"],
        *,
        valid: Bool[Tensor, "B L"],
        n_unseen: Int[Tensor, "B P"],
        times: Int64[Tensor, "B L"] | None = None,
        request_times: Int64[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B P K D"]:
        """The vectors of each target, one without ``n_interests``; zero for a target that sees nothing.

        Args:
            tokens: item tokens aligned to the right.
            valid: True where the token is an item.
            n_unseen: newest items a target must not see; with ``use_request_time`` the target is the first
                of them, or comes after all.
            times: of each item, in seconds since any moment; needed with ``use_times``.
            request_times: of the request that comes after all items; needed with ``use_request_time``.

        Raises:
            ValueError: times are needed and not given.
        """
        self._check(times, request_times)
        source, there = left_columns(valid)
        rows = torch.arange(len(tokens), device=tokens.device)[:, None]
        sequence = self._input(tokens[rows, source], there=there)
        frame = _Frame.of(
            there,
            times=None if times is None else times[rows, source],
            request_times=request_times,  # read by the last row alone, which is used with use_request_time
        )
        n_seen = (valid.sum(1, keepdim=True) - n_unseen).clamp(min=0)
        repeats_last = self._repeats_last(n_targets=n_seen.shape[1])
        ends = self._ends(sequence, n_seen=n_seen, repeats_last=repeats_last)
        if ends is None:
            relation = frame.relation(self.use_times)
            for block in self.blocks:
                sequence = block(sequence, relation=relation)
            outputs = sequence[rows, (n_seen - 1).clamp(min=0)][:, :, None]
        else:
            first = n_seen - 1 if repeats_last else n_seen
            outputs = self._at_ends(sequence, frame, ends=ends, n_seen=n_seen, first=first.clamp(min=0))
        return outputs * (n_seen > 0)[..., None, None]

    def _input(self, tokens: Tensor, *, there: Tensor) -> Tensor:
        sequence = tokens * tokens.shape[2] ** 0.5 + self.positions[: tokens.shape[1]]
        return self.dropout(torch.where(there[..., None], sequence, 0))  # type: ignore[no-any-return]

    def _repeats_last(self, *, n_targets: int) -> bool:
        """Whether a target's last item is a row of its own beside the history.

        For this target alone its time is repeated; or there is no other target, and no query. Not with the
        time of the request, which is a row's to itself as well.
        """
        is_all = n_targets == 1 and self.queries is None and not self.training
        return not self.use_request_time and (self.use_times or is_all)

    def _ends(
        self, sequence: Tensor, *, n_seen: Int[Tensor, "B P"], repeats_last: bool
    ) -> Float[Tensor, "B P G D"] | None:
        """Rows beside the history, a group for each target: its last item, its queries, both; or None."""
        ends = [_newest(sequence, n_seen=n_seen, count=1)] if repeats_last else []
        if self.queries is not None:
            queries = self.queries.expand(*n_seen.shape, -1, -1)
            if self.query_init == "recent":
                queries = queries + _newest(sequence, n_seen=n_seen, count=len(self.queries))
            ends.append(queries)
        return torch.cat(ends, dim=2) if ends else None

    def _at_ends(
        self,
        sequence: Tensor,
        frame: _Frame,
        *,
        ends: Float[Tensor, "B P G D"],
        n_seen: Int[Tensor, "B P"],
        first: Int[Tensor, "B P"],
    ) -> Float[Tensor, "B P K D"]:
        """Outputs at the queries, or at the row of the last item where there are none.

        ``first`` is the position of a target's first end.
        """
        group = ends.shape[2]
        lasts = (n_seen - 1).clamp(min=0)
        relation = frame.relation(self.use_times)
        of_ends = frame.relation_of_ends(
            first,
            moments=(frame.next_times if self.use_request_time else frame.times).gather(1, lasts),
            group=group,
            use_times=self.use_times,
        )
        ends = ends.flatten(1, 2)
        for number, block in enumerate(self.blocks, start=1):
            assert isinstance(block, HSTUBlock)
            more_to_come = number < len(self.blocks)
            sequence, ends = block.with_ends(
                sequence, ends, relation=relation if more_to_come else None, of_ends=of_ends, group=group
            )
        return ends.unflatten(1, (-1, group))[:, :, -(self.n_interests or 1) :]  # type: ignore[no-any-return]

    def _check(self, times: Tensor | None, request_times: Tensor | None) -> None:
        if self.use_times and times is None:
            raise ValueError("use_times: the times of the items are needed, and not given")
        if self.use_request_time and request_times is None:
            raise ValueError("use_request_time: the time of the request is needed, and not given")


def _newest(
    sequence: Float[Tensor, "B L D"], *, n_seen: Int[Tensor, "B P"], count: int
) -> Float[Tensor, "B P R D"]:
    """Rows of the newest items that each target sees, the newest first; zero where there are fewer."""
    rows = torch.arange(len(n_seen), device=n_seen.device)[:, None, None]
    columns = n_seen[:, :, None] - 1 - torch.arange(count, device=n_seen.device)
    return sequence[rows, columns.clamp(min=0)] * (columns >= 0)[..., None]


@dataclass(frozen=True)
class _Frame:
    """Where and when the items of left-aligned histories are, and who sees whom.

    Attributes:
        visible: [B, L, L].
        times: [B, L] of the item itself, in seconds. next_times: [B, L] of the event after it.
    """

    visible: Tensor
    times: Tensor
    next_times: Tensor

    @classmethod
    def of(
        cls,
        there: Bool[Tensor, "B L"],
        *,
        times: Int64[Tensor, "B L"] | None,
        request_times: Int64[Tensor, " B"] | None,
    ) -> _Frame:
        """Without times all are 0; without a request time the last item's is repeated."""
        times = torch.zeros_like(there, dtype=torch.int64) if times is None else times
        is_last = there & ~nn.functional.pad(there[:, 1:], (0, 1))
        after = times if request_times is None else request_times[:, None]
        next_times = torch.where(is_last, after, times.roll(-1, dims=1))
        return cls(causal_visibility(there), times, next_times)

    def relation(self, use_times: bool) -> Relation:
        """Of every item to every item, with β(t_{i+1} − t_j) where the blocks read times."""
        columns = torch.arange(self.times.shape[1], device=self.times.device)
        buckets = time_buckets(self.next_times[:, :, None] - self.times[:, None, :]) if use_times else None
        return Relation(self.visible, (columns - columns[:, None])[None], buckets)

    def relation_of_ends(
        self,
        first: Int[Tensor, "B P"],
        *,
        moments: Int64[Tensor, "B P"],
        group: int,
        use_times: bool,
    ) -> Relation:
        """Of ``group`` rows for each target, in positions from ``first`` on, to the items before that.

        Args:
            first: position of a target's first row.
            moments: of the event after a target's rows, in seconds.
            group: rows of a target.
            use_times: whether the blocks read times.
        """
        columns = torch.arange(self.times.shape[1], device=first.device)
        positions = (first[:, :, None] + torch.arange(group, device=first.device)).flatten(1)
        first, moments = (each.repeat_interleave(group, dim=1)[:, :, None] for each in (first, moments))
        buckets = time_buckets(moments - self.times[:, None, :]) if use_times else None
        return Relation(columns < first, columns - positions[:, :, None], buckets)
