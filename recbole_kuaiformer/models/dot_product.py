"""Models whose score is a dot product: their user and item vectors, RecBole's own included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn


@runtime_checkable
class DotProductModel(Protocol):
    """Score of an item = the largest dot product of its vector with one of the user's K vectors.

    A model of your own that has these two methods is served by an index without further ado.
    """

    def user_vectors(self, interaction: Interaction) -> Tensor:
        """[B, K, D] for each row of a batch."""
        ...

    def item_vectors(self) -> Tensor:
        """[N, D] for each item id; row 0 is padding."""
        ...


def _of_sequence(model: Any, interaction: Interaction) -> Tensor:
    lengths = interaction[model.ITEM_SEQ_LEN]
    return model.forward(interaction[model.ITEM_SEQ], lengths)  # type: ignore[no-any-return]


def _item_table(model: Any) -> Tensor:
    return model.item_embedding.weight  # type: ignore[no-any-return]


def _bert4rec_users(model: Any, interaction: Interaction) -> Tensor:
    lengths = interaction[model.ITEM_SEQ_LEN]
    with_mask = model.reconstruct_test_data(interaction[model.ITEM_SEQ], lengths)
    vectors = model.gather_indexes(model.forward(with_mask), lengths - 1)
    return torch.cat([vectors, torch.ones_like(vectors[:, :1])], dim=1)


def _bert4rec_items(model: Any) -> Tensor:
    """The output bias is one more dimension; the row of the mask token is left out."""
    table = model.item_embedding.weight[: model.n_items]
    bias = getattr(model, "output_bias", table.new_zeros(len(table)))
    return torch.cat([table, bias[:, None]], dim=1)


def _core_users(model: Any, interaction: Interaction) -> Tensor:
    return model.forward(interaction[model.ITEM_SEQ]) / model.temperature  # type: ignore[no-any-return]


def _core_items(model: Any) -> Tensor:
    return nn.functional.normalize(model.item_embedding.weight, dim=-1)


def _lightgcn_tables(model: Any) -> tuple[Tensor, Tensor]:
    if model.restore_user_e is None or model.restore_item_e is None:
        model.restore_user_e, model.restore_item_e = model.forward()
    return model.restore_user_e, model.restore_item_e


def _simplex_users(model: Any, interaction: Interaction) -> Tensor:
    user = interaction[model.USER_ID]
    of_history = model.item_emb(model.history_item_id[user])
    vectors = model.get_UI_aggregation(model.user_emb(user), of_history, model.history_item_len[user])
    return nn.functional.normalize(vectors, dim=1)


Vectors = tuple[Callable[[Any, Interaction], Tensor], Callable[[Any], Tensor]]
_SEQUENTIAL: Vectors = (_of_sequence, _item_table)

# Class of RecBole: how to get its user vectors [B, D] of a batch, and its item vectors [N, D].
VECTORS: dict[str, Vectors] = {
    "SASRec": _SEQUENTIAL,
    "GRU4Rec": _SEQUENTIAL,
    "NARM": _SEQUENTIAL,
    "STAMP": _SEQUENTIAL,
    "SINE": _SEQUENTIAL,
    "LightSANs": _SEQUENTIAL,
    "BERT4Rec": (_bert4rec_users, _bert4rec_items),
    "CORE": (_core_users, _core_items),
    "BPR": (lambda model, batch: model.get_user_embedding(batch[model.USER_ID]), _item_table),
    "LightGCN": (
        lambda model, batch: _lightgcn_tables(model)[0][batch[model.USER_ID]],
        lambda model: _lightgcn_tables(model)[1],
    ),
    "SimpleX": (_simplex_users, lambda model: nn.functional.normalize(model.item_emb.weight, dim=1)),
}


class _OfRecBole:
    def __init__(self, model: Any, vectors: Vectors) -> None:
        self._model = model
        self._users, self._items = vectors

    def user_vectors(self, interaction: Interaction) -> Tensor:
        return self._users(self._model, interaction)[:, None]

    def item_vectors(self) -> Tensor:
        return self._items(self._model)


def dot_product_model(model: Any) -> DotProductModel | None:
    """The model's vectors, if its score is known to be a dot product."""
    if isinstance(model, DotProductModel):
        return model
    kind = type(model)
    if kind.__module__.startswith("recbole.model.") and kind.__name__ in VECTORS:
        return _OfRecBole(model, VECTORS[kind.__name__])
    return None


class ScoreMismatchError(RuntimeError):
    """A model's vectors do not give its own scores; ranking by them would be wrong."""


@torch.no_grad()
def check_scores(model: Any, interaction: Interaction, *, interests: Tensor, items: Tensor) -> None:
    """The vectors of these rows must give the scores of the model's own full_sort_predict.

    Args:
        model: RecBole's model.
        interaction: a few rows.
        interests: what is said to be their vectors, [B, K, D].
        items: what is said to be the item vectors, [N, D].

    Raises:
        ScoreMismatchError: they do not; says what may be missing.
    """
    theirs = model.full_sort_predict(interaction).view(len(interests), -1)
    name = type(model).__name__
    if theirs.shape[1] != len(items):
        raise ScoreMismatchError(
            f"{name}: full_sort_predict scores {theirs.shape[1]} items, but it has {len(items)} item "
            "vectors; a row too many may belong to a mask token. Set evaluator: recbole"
        )
    ours = torch.stack([interests[:, r] @ items.T for r in range(interests.shape[1])]).amax(0)
    lengths = _lengths(interests).amax(1)[:, None] * _lengths(items)
    allowed = 1e-4 * theirs.abs() + 2e-5 * lengths + torch.finfo(torch.float32).tiny
    difference = (ours - theirs).abs()[:, 1:]
    if bool((difference <= allowed[:, 1:]).all()):
        return
    raise ScoreMismatchError(
        f"{name}: dot products of its vectors differ from full_sort_predict by up to "
        f"{float(difference.amax()):.3g} (scores reach {float(theirs[:, 1:].abs().amax()):.3g}); an output "
        "bias, a normalisation or a temperature may be missing from user_vectors and item_vectors. Set "
        "evaluator: recbole"
    )


def _lengths(vectors: Tensor) -> Tensor:
    """Euclidean ones; the largest part where squares underflow, as those of an item that decayed to 1e-30."""
    return vectors.norm(dim=-1).maximum(torch.linalg.vector_norm(vectors, ord=torch.inf, dim=-1))  # type: ignore[no-any-return]
