"""How often an item is among a batch's targets: counted once, or followed as a stream.

Streaming: Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations",
RecSys 2019, Algorithms 2 and 3.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


class CountFrequency(nn.Module):
    """q by counts of the training split.

    Args:
        counts: [N] how often each id is a training target, or is on average; padding id 0 is left out.

    Raises:
        ValueError: nothing was counted.
    """

    q: Tensor

    def __init__(self, counts: Int64[Tensor, " N"] | Float[Tensor, " N"]) -> None:
        super().__init__()
        counts = counts.clone()
        counts[0] = 0
        if counts.sum() == 0:
            raise ValueError("no item occurs in the training split: there are no frequencies to count")
        self.register_buffer("q", (counts.double() / counts.sum()).float())

    def observe(self, item_ids: Int64[Tensor, " P"]) -> None:
        """Counts are known beforehand: a batch changes nothing."""

    def forward(self, batch_size: int) -> Float[Tensor, " N"]:
        """Probability that one target is the item; sums to 1, whatever the batch size."""
        del batch_size
        return self.q


class StreamingFrequency(nn.Module):
    """q from a moving average of the number of steps between two appearances of an item.

    Per slot: gap ← (1 − rate) · gap + rate · (step − last step), in which an item counts once a step.
    p̂ = 1 / gap estimates the probability that a batch holds the item. Buffers are part of a checkpoint;
    in evaluation they do not move; where several processes train, a step's ids are those of all of them.

    Args:
        n_items: N. rate: weight of the newest gap, in (0, 1]. initial_gap: steps, before anything was seen.
        n_hashes: hash functions, whose largest gap counts (a collision makes a gap too short).
        n_slots: slots of each hash function; None gives every item its own, without collisions.

    Raises:
        ValueError: an argument is out of range.
    """

    last_seen: Tensor
    gap: Tensor
    step: Tensor
    slots: Tensor

    def __init__(
        self, n_items: int, *, rate: float, initial_gap: float, n_hashes: int, n_slots: int | None
    ) -> None:
        super().__init__()
        if not 0 < rate <= 1 or initial_gap < 1:
            raise ValueError(
                f"needs 0 < rate <= 1 <= initial_gap, got rate {rate}, initial_gap {initial_gap}"
            )
        if n_hashes < 1 or (n_slots is not None and n_slots < 1) or (n_slots is None and n_hashes != 1):
            raise ValueError(
                f"n_hashes {n_hashes} with n_slots {n_slots}: several hashes need slots, at least one"
            )
        self.rate = rate
        width = n_slots or n_items
        self.register_buffer("slots", _hash_slots(n_items, n_hashes=n_hashes, n_slots=n_slots))
        self.register_buffer("last_seen", torch.zeros(n_hashes, width, dtype=torch.int64))
        self.register_buffer("gap", torch.full((n_hashes, width), float(initial_gap)))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, item_ids: Int64[Tensor, " P"]) -> None:
        """One training step whose batch holds these items; nothing happens in evaluation mode."""
        if not self.training:
            return
        self.step += 1
        for last_seen, gap, slots in zip(self.last_seen, self.gap, self.slots, strict=True):
            seen = slots[item_ids[item_ids > 0]].unique()
            gap[seen] += self.rate * ((self.step - last_seen[seen]) - gap[seen])
            last_seen[seen] = self.step

    def inclusion_probability(self) -> Float[Tensor, " N"]:
        """p̂: probability that a batch holds the item; 0 for padding."""
        gaps = self.gap.gather(1, self.slots).amax(0)
        p = 1 / gaps.clamp(min=1.0)
        return p * (torch.arange(len(p), device=p.device) > 0)

    def forward(self, batch_size: int) -> Float[Tensor, " N"]:
        """Probability that one of ``batch_size`` targets is the item: q = 1 − (1 − p̂)^(1 / batch size).

        Unlike the paper, whose batches hold an item once, a batch here may repeat it, so p̂ saturates: an
        item in every batch has p̂ = 1 and no finite q. p̂ is held below 1 by float32's resolution.
        """
        p = self.inclusion_probability().clamp(max=1 - torch.finfo(torch.float32).eps)
        return -torch.expm1(torch.log1p(-p) / batch_size)


def _hash_slots(n_items: int, *, n_hashes: int, n_slots: int | None) -> Int64[Tensor, "m N"]:
    if n_slots is None:
        return torch.arange(n_items)[None]
    # A drawn table is an ideal hash function, and no larger than what caching a computed one would be.
    return torch.randint(n_slots, (n_hashes, n_items))
