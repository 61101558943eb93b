"""Trainings of RecBole's own models that go on after an interruption, where they left off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.nn as nn
from recbole.trainer import Trainer
from recbole.utils import ModelType

from recbole_kuaiformer import checkpoint
from recbole_kuaiformer.evaluation.random_state import random_state, restore


def can_continue(model: Any, *, trainer: type[Any]) -> bool:
    """Whether all that a training needs to go on is in weights, optimiser and random states.

    So it is of RecBole's sequential models with its plain trainer. Others may count their steps, or train
    in phases, where no checkpoint knows of it.
    """
    held = (model.other_parameter() or {}).values()  # in RecBole's models layers, whose weights are its own
    is_plain = all(isinstance(one, nn.Module) for one in held)
    return trainer is Trainer and model.type == ModelType.SEQUENTIAL and is_plain


class Continued:
    """Mixed into RecBole's trainer: every completed epoch is kept, and ``fit`` goes on after the last.

    On one seed and CPU the training ends exactly where an uninterrupted one ends: ``…-last.pth`` holds the
    random states, and the state of the loader's generator, which orders the batches. The best epoch's
    checkpoint stays RecBole's.
    """

    last: Path | None = None  # checkpoint of the last completed epoch, to go on from

    logger: Any
    model: Any
    optimizer: Any
    device: Any
    epochs: int
    start_epoch: int
    cur_step: int
    best_valid_score: Any
    saved_model_file: str
    train_loss_dict: dict[int, Any]

    def fit(self, train_data: Any, *args: Any, **kwargs: Any) -> Any:
        """RecBole's, from the epoch after the last one that was completed."""
        recbole: Any = super()
        if self.last is not None and self._take_up(self.last, loader=train_data):
            return self.best_valid_score, None
        result = recbole.fit(train_data, *args, **kwargs)
        self._keep(max(self.train_loss_dict), loader=train_data, is_finished=True)
        return result

    def _train_epoch(self, train_data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> Any:
        recbole: Any = super()
        if epoch_idx > self.start_epoch:
            self._keep(epoch_idx - 1, loader=train_data, is_finished=False)
        return recbole._train_epoch(train_data, epoch_idx, *args, **kwargs)

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        """RecBole's checkpoint of the best epoch, written whole or not at all."""
        recbole: Any = super()
        path = Path(kwargs.pop("saved_model_file", self.saved_model_file))
        beside = path.with_name(f"{path.name}.part")
        recbole._save_checkpoint(epoch, verbose=False, saved_model_file=str(beside), **kwargs)
        beside.replace(path)
        if verbose:
            self.logger.info(f"Saving current: {path}")

    def _keep(self, epoch: int, *, loader: Any, is_finished: bool) -> None:
        best = Path(self.saved_model_file)
        state = {
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "best_model_file": best.name,
            "is_finished": is_finished,
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random_state": random_state(),
            "order": loader.generator.get_state(),
        }
        checkpoint.save(state, path=checkpoint.last_beside(best))

    def _take_up(self, last: Path, *, loader: Any) -> bool:
        """Take up what was kept; whether the training was at its end already."""
        state = checkpoint.load(last, device=self.device)
        self.saved_model_file = str(last.with_name(state["best_model_file"]))
        self.start_epoch = state["epoch"] + 1
        self.cur_step = state["cur_step"]
        self.best_valid_score = state["best_valid_score"]
        self.model.load_state_dict(state["state_dict"])
        self.optimizer.load_state_dict(state["optimizer"])
        restore(state["random_state"])
        loader.generator.set_state(state["order"].cpu())
        return state["is_finished"] or self.start_epoch >= self.epochs
