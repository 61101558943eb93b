"""Floating-point operations of a piece of code, and the bare matrix products it is made of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from recbole_kuaiformer.benchmarks import measuring
from recbole_kuaiformer.models.dot_product import DotProductModel

_ATEN = torch.ops.aten
_FLASH = _ATEN._scaled_dot_product_flash_attention_for_cpu
_FLASH_BACKWARD = _ATEN._scaled_dot_product_flash_attention_for_cpu_backward

Product = tuple[tuple[int, ...], tuple[int, ...]]  # shapes of the two factors


def _flash(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _flash_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


def counted(work: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and attentions of work, by torch's own counter.

    The counter leaves out the fused attention of CPUs: it is added here, by the counter's own formulas.
    """
    ours = {_FLASH: _flash, _FLASH_BACKWARD: _flash_backward}
    with FlopCounterMode(display=False, custom_mapping=ours) as counter:
        work()
    return int(counter.get_total_flops())


@torch.no_grad()
def encoding_mflops(vectors: DotProductModel, interaction: Interaction) -> float:
    """Millions of operations that encode a row of the interaction, on average, as they are padded in it."""
    return counted(lambda: vectors.user_vectors(interaction)) / len(interaction) / 1e6


class _Recorder(TorchDispatchMode):
    """Shapes of every matrix product, forward and backward."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for left, right in _products(func.overloadpacket, args):
            self.products[left, right] += 1
        return func(*args, **(kwargs or {}))


def _products(op: Any, args: Any) -> list[Product]:
    if op in (_ATEN.mm, _ATEN.bmm):
        return [(tuple(args[0].shape), tuple(args[1].shape))]
    if op in (_ATEN.addmm, _ATEN.baddbmm):
        return [(tuple(args[1].shape), tuple(args[2].shape))]
    if op is _FLASH:
        scores, mixed, _ = _attention(*args[:3])
        return [scores, mixed]
    if op is _FLASH_BACKWARD:  # scores anew and their gradient; then the gradients of value, query, key
        scores, mixed, transposed = _attention(*args[1:4])
        return [scores, scores, transposed, mixed, transposed]
    return []


def _attention(query: Any, key: Any, value: Any) -> tuple[Product, Product, Product]:
    *batch, n_rows, width = query.shape
    rows, n_columns = math.prod(batch), key.shape[-2]
    scores = (rows, n_rows, n_columns)
    return (
        ((rows, n_rows, width), (rows, width, n_columns)),
        (scores, (rows, n_columns, value.shape[-1])),
        ((rows, n_columns, n_rows), (rows, n_rows, width)),
    )


def products(work: Callable[[], Any]) -> Counter[Product]:
    """How often work multiplies matrices of which shapes; an attention counts as its products."""
    recorder = _Recorder()
    with recorder:
        work()
    return recorder.products


def flops_of(shapes: Counter[Product]) -> int:
    """Floating-point operations of the given products."""
    return sum(2 * math.prod(left) * right[-1] * times for (left, right), times in shapes.items())


def bare_seconds(shapes: Counter[Product], *, repeats: int) -> float:
    """Seconds that the given products take alone, on random matrices: the sum of their medians."""
    return sum(times * _alone(left, right, repeats=repeats) for (left, right), times in shapes.items())


def _alone(left: tuple[int, ...], right: tuple[int, ...], *, repeats: int) -> float:
    factors = torch.randn(left), torch.randn(right)
    result = factors[0] @ factors[1]

    def multiply() -> None:
        torch.matmul(*factors, out=result)

    return measuring.median(measuring.seconds(multiply, repeats=repeats))


def peak(*, size: int = 1536, repeats: int = 5) -> float:
    """Floating-point operations a second of one large product: what this machine can do at best."""
    return 2.0 * size**3 / _alone((size, size), (size, size), repeats=repeats)
