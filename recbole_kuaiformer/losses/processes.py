"""Several training processes as one: what each of them must know of the others.

Every process holds the whole model, so ids and counts are exchanged, never vectors. With one process
nothing is sent. Tensors travel on the device they are on: gloo for the CPU, nccl for CUDA.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def n_processes() -> int:
    """How many processes train together; 1 where no process group was made."""
    return distributed.get_world_size() if _are_several() else 1


def number() -> int:
    """This process's number among all of them, from 0."""
    return distributed.get_rank() if _are_several() else 0


def _are_several() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def of_all(values: Tensor) -> list[Tensor]:
    """The [P_r, ...] values of each process r, in order of their numbers; P_r may differ and be 0.

    All dimensions but the first, and the type, must be the same everywhere.
    """
    if n_processes() == 1:
        return [values]
    sizes = torch.zeros(n_processes(), dtype=torch.int64, device=values.device)
    sizes[number()] = len(values)
    distributed.all_reduce(sizes)
    lengths: list[int] = sizes.tolist()
    padded = values.new_zeros(max(lengths), *values.shape[1:])
    padded[: len(values)] = values
    gathered = [torch.empty_like(padded) for _ in lengths]
    if max(lengths):
        distributed.all_gather(gathered, padded)
    return [part[:length] for part, length in zip(gathered, lengths, strict=True)]


def total(values: Tensor) -> Tensor:
    """Sum of the processes' tensors of one shape."""
    if n_processes() == 1:
        return values
    values = values.clone()
    distributed.all_reduce(values)
    return values


def of_first(values: Tensor) -> Tensor:
    """Process 0's tensor, in the place of each process's own of the same shape (a draw, say)."""
    if n_processes() > 1:
        distributed.broadcast(values, src=0)
    return values


def object_of_first(thing: Any) -> Any:
    """Process 0's object, pickled on the way: names and numbers, no large tensors."""
    things = [thing]
    if n_processes() > 1:
        distributed.broadcast_object_list(things, src=0)
    return things[0]


def objects_of_all(thing: Any) -> list[Any]:
    """Each process's object, pickled on the way: random states and shapes, no large tensors."""
    things = [thing] * n_processes()
    if n_processes() > 1:
        distributed.all_gather_object(things, thing)
    return things
