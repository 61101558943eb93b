"""Test users of a trained checkpoint, encoded by its model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from recbole.quick_start import load_data_and_model
from recbole.utils import get_trainer
from torch import Tensor

from recbole_kuaiformer.benchmarks.comparison_settings import no_arguments
from recbole_kuaiformer.checkpoint import CheckpointError
from recbole_kuaiformer.index.multi_interest import Exclusions
from recbole_kuaiformer.models.dot_product import dot_product_model
from recbole_kuaiformer.settings import SettingsError


@dataclass(frozen=True)
class Users:
    """Test users with everything that ranking them takes.

    Attributes:
        interests: [U, K, D]. targets: [U] item ids. items: [N, D], row 0 is padding.
        excluded: what leaves each user's list; None for nothing.
        history: items that each user has had.
        dataset: RecBole's, of the checkpoint.
    """

    interests: Tensor
    targets: Tensor
    items: Tensor
    excluded: Exclusions | None
    history: Exclusions
    dataset: Any


class _Gathering:
    """Mixed into a trainer: ``evaluate`` keeps the batches that would be searched."""

    def _full_sort_batch_eval(self, batched_data: Any) -> Any:
        recbole: Any = super()
        found = recbole._full_sort_batch_eval(batched_data)
        self.__dict__.setdefault("batches", []).append(found[1:])
        return found


def users_of(checkpoint: Path, *, history: str, watch: Callable[[Any], None] | None = None) -> Users:
    """The test users of a checkpoint, their interests encoded by its model.

    Args:
        checkpoint: file of this package, or of RecBole.
        history: reading, of config.READINGS.
        watch: called with the model before it encodes anybody, as to hang hooks into it.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is no checkpoint.
        SettingsError: the model's score is no dot product.
    """
    config, model, dataset, test_data = loaded(checkpoint)
    if watch is not None:
        watch(model)
    config["report_both"], config["evaluator"], config["strict"] = True, "faiss", True
    kind = get_trainer(config["MODEL_TYPE"], config["model"])
    trainer = type(kind.__name__, (_Gathering, kind), {})(config, model)
    trainer.evaluate(test_data, load_best_model=False)
    starts, interests, had = 0, [], []
    for batch, _, _ in trainer.batches:
        pairs = batch.excluded["masked"]
        had.append((pairs.rows + starts, pairs.item_ids))
        interests.append(batch.interests)
        starts += len(batch.interests)
    of_history = Exclusions.of(*(torch.cat(part) for part in zip(*had)))
    vectors = dot_product_model(model)
    assert vectors is not None  # strict
    with torch.no_grad():
        items = vectors.item_vectors().detach().contiguous()
    return Users(
        torch.cat(interests).detach(),
        torch.cat([positive_i for *_, positive_i in trainer.batches]).to(items.device),
        items,
        of_history if history == "masked" else None,
        of_history,
        dataset,
    )


def loaded(checkpoint: Path) -> tuple[Any, Any, Any, Any]:
    """Config, model, dataset and test data, as RecBole's ``load_data_and_model`` gives them.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is no checkpoint.
    """
    if not checkpoint.is_file():
        raise FileNotFoundError(f"{checkpoint}: no such file")
    try:
        with no_arguments():
            config, model, dataset, _, _, test_data = load_data_and_model(str(checkpoint))
    except SettingsError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{checkpoint}: no checkpoint of a trained model ({error!r:.200})") from error
    return config, model, dataset, test_data


def named_checkpoints(given: Iterable[str]) -> dict[str, Path]:
    """Files by name, out of NAME=FILE.

    >>> named_checkpoints(["one=saved/a.pth"])
    {'one': PosixPath('saved/a.pth')}

    Raises:
        SettingsError: a text has no name or no file, or a name is there twice.
    """
    files = {}
    for text in given:
        name, _, file = text.partition("=")
        if not name or not file or name in files or {*name} & {*"/\\|"}:
            raise SettingsError(
                f"--checkpoints: {text!r} is no NAME=FILE (names without / and |), or the name is there twice"
            )
        files[name] = Path(file)
    return files
