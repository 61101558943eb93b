"""Several targets through an encoder that takes one at a time: a pass for each."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from recbole_kuaiformer.encoders.base import SingleTargetEncoder

TOKENS_AT_ONCE = 2**16  # some 500 MB of activations with two layers at D = 64


class SeparatePasses(nn.Module):
    """A ``HistoryEncoder`` that encodes what each target sees as a history of its own.

    Exactly the wrapped encoder's output on each history cut before its target, at the cost of a pass for
    each: an encoder that serves all targets of a window in one pass costs less by about their number.
    Targets of a row that see the same are encoded once, so padded targets (which hide nothing, like the
    window's last) cost nothing more. Histories of similar length go together, with no more padding than
    their longest needs, and in training each part is computed again for its gradient: memory is that of
    one part whatever the number of targets.

    Args:
        encoder: a ``torch.nn.Module`` that is a ``SingleTargetEncoder``.
        tokens_at_once: most tokens, padding included, in a part; a history longer than that is a part by
            itself.
    """

    def __init__(self, encoder: SingleTargetEncoder, *, tokens_at_once: int = TOKENS_AT_ONCE) -> None:
        super().__init__()
        self.encoder = encoder
        self.tokens_at_once = tokens_at_once

    def forward(
        self, tokens: Float[Tensor, "B L D"], *, valid: Bool[Tensor, "B L"], n_unseen: Int[Tensor, "B P"]
    ) -> Float[Tensor, "B P K D"]:
        """K interests for each target."""
        width = tokens.shape[1]
        row_numbers = torch.arange(len(tokens), device=tokens.device)[:, None]
        pairs, of_target = (row_numbers * (width + 1) + n_unseen.clamp(max=width)).unique(return_inverse=True)
        rows, hidden = pairs // (width + 1), pairs % (width + 1)
        lengths = (valid.sum(1)[rows] - hidden).clamp(min=1)  # a history without an item is one of padding
        order = lengths.argsort(stable=True)
        found = [
            self._encode(tokens, valid, rows[part], hidden[part], longest)
            for part, longest in _parts(order, lengths=lengths, tokens_at_once=self.tokens_at_once)
        ]
        return torch.cat(found)[order.argsort()[of_target]]

    def _encode(self, tokens: Tensor, valid: Tensor, rows: Tensor, hidden: Tensor, longest: int) -> Tensor:
        def encode(tokens: Tensor) -> Tensor:
            columns = torch.arange(-longest, 0, device=rows.device) + tokens.shape[1] - hidden[:, None]
            seen, columns = columns >= 0, columns.clamp(min=0)
            of_rows = rows[:, None]
            return self.encoder(tokens[of_rows, columns], valid=valid[of_rows, columns] & seen)

        if torch.is_grad_enabled():
            return checkpoint(encode, tokens, use_reentrant=False)  # type: ignore[no-any-return]
        return encode(tokens)


def _parts(
    order: Int[Tensor, " n"], *, lengths: Int[Tensor, " n"], tokens_at_once: int
) -> list[tuple[Int[Tensor, " part"], int]]:
    """Stretches of ``order`` (shortest first) and the longest length of each; at most tokens_at_once tokens.

    >>> parts = _parts(torch.tensor([2, 0, 1]), lengths=torch.tensor([3, 4, 2]), tokens_at_once=7)
    >>> [(part.tolist(), longest) for part, longest in parts]
    [([2, 0], 3), ([1], 4)]
    """
    ascending = lengths[order].tolist()
    sizes = [0]
    for length in ascending:
        if sizes[-1] and (sizes[-1] + 1) * length > tokens_at_once:
            sizes.append(0)
        sizes[-1] += 1
    parts = order.split(sizes)
    return [(part, int(lengths[part[-1]])) for part in parts]
