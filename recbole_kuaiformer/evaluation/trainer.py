"""RecBole's trainer with checkpoints that resume exactly."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.trainer import Trainer
from torch import Tensor

from recbole_kuaiformer import checkpoint
from recbole_kuaiformer.config import TrainingSettings
from recbole_kuaiformer.evaluation.ranking import IndexRanking


class TrainingError(RuntimeError):
    """Training cannot go on; the message says where it stopped and what to do."""


class RetrievalTrainer(IndexRanking, Trainer):
    """Writes the best epoch to ``saved_model_file``, as RecBole does, and every epoch to ``…-last.pth``.

    With ``resume_from`` (a ``…-last.pth``) training continues from the last epoch that was completed, and
    on one seed and CPU ends exactly where an uninterrupted run ends: the checkpoint holds the random
    states, and an epoch's order depends on seed and epoch number alone. Both files hold plain types and
    load with torch's safe loader.

    Raises:
        TrainingError: the loss became NaN or infinite.
    """

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        self.settings = TrainingSettings.read(config)
        self.is_finished = False

    @property
    def last_checkpoint(self) -> Path:
        """Where the state after the last completed epoch is kept."""
        best = Path(self.saved_model_file)
        return best.with_name(f"{best.stem}-last.pth")

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Any = None,
    ) -> tuple[float, dict[str, float] | None]:
        """Train as RecBole's trainer does; returns the best validation score and result."""
        self.check_cut_offs(train_data.dataset.item_num - 1)
        self.config[checkpoint.FINGERPRINT] = checkpoint.fingerprint(train_data.dataset)
        if self.settings.resume_from and self.start_epoch == 0:
            self.resume_checkpoint(self.settings.resume_from)
        if self.is_finished or self.start_epoch >= self.epochs > 0:
            self.logger.info(f"Nothing left to train: epoch {self.start_epoch} of {self.epochs}")
            return self.best_valid_score, self.best_valid_result
        self._saves_last = saved
        result = super().fit(
            train_data,
            valid_data,
            verbose=verbose,
            saved=saved,
            show_progress=show_progress,
            callback_fn=callback_fn,
        )
        if self.train_loss_dict:
            self.is_finished = self.cur_step > self.stopping_step
            self._save_last(max(self.train_loss_dict))
        return result  # type: ignore[no-any-return]

    def _train_epoch(
        self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False
    ) -> Any:
        if epoch_idx > self.start_epoch:
            self._save_last(epoch_idx - 1)
        train_data.set_epoch(epoch_idx)
        self._epoch = epoch_idx
        return super()._train_epoch(train_data, epoch_idx, loss_func=loss_func, show_progress=show_progress)

    def _check_nan(self, loss: Tensor) -> None:
        if torch.isfinite(loss):
            return
        raise TrainingError(
            f"the training loss became {loss.item()} in epoch {self._epoch}; lower learning_rate or raise "
            f"temperature, or set clip_grad_norm. The epochs before it are kept in {self.last_checkpoint} "
            f"(if there were any)"
        )

    # ---- checkpoints ---------------------------------------------------------------------------------

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        if not self.config["single_spec"] and self.config["local_rank"] != 0:
            return
        path = Path(kwargs.pop("saved_model_file", self.saved_model_file))
        checkpoint.save(self._state(epoch), path=path)
        if verbose:
            self.logger.info(f"Saving current: {path}")

    def _save_last(self, epoch: int) -> None:
        if self._saves_last:
            self._save_checkpoint(epoch, verbose=False, saved_model_file=self.last_checkpoint)

    def _state(self, epoch: int) -> dict[str, Any]:
        return {
            "config": checkpoint.plain_config(self.config),
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": _plain_result(self.best_valid_result),
            "best_model_file": Path(self.saved_model_file).name,
            "train_loss": {int(key): float(value) for key, value in self.train_loss_dict.items()},
            "is_finished": self.is_finished,
            "state_dict": self.model.state_dict(),
            "other_parameter": self.model.other_parameter(),
            "optimizer": self.optimizer.state_dict(),
            "random_state": _random_state(),
        }

    def resume_checkpoint(self, resume_file: str | Path) -> None:
        """Continue from a ``…-last.pth`` checkpoint, as if training had never been interrupted.

        Raises:
            FileNotFoundError: the checkpoint, or the best epoch's file beside it, is not there.
            CheckpointError: the file is no readable checkpoint, or is of another model.
        """
        path = Path(resume_file)
        state = checkpoint.load(path, device=self.device)
        saved, mine = state["config"]["final"], checkpoint.plain_config(self.config)["final"]
        self._compare(saved, mine, path=path)
        best = path.with_name(state["best_model_file"])
        if not best.is_file():
            raise FileNotFoundError(
                f"{best}: the best epoch's checkpoint, which {path} belongs to, is not there"
            )
        self.saved_model_file = str(best)
        self.start_epoch = state["epoch"] + 1
        self.cur_step = state["cur_step"]
        self.best_valid_score = state["best_valid_score"]
        self.best_valid_result = state["best_valid_result"]
        self.train_loss_dict = dict(state["train_loss"])
        self.is_finished = state["is_finished"]
        self.model.load_state_dict(state["state_dict"])
        self.model.load_other_parameter(state["other_parameter"])
        self.optimizer.load_state_dict(state["optimizer"])
        _restore_random_state(state["random_state"])
        self.logger.info(f"Checkpoint {path} loaded. Training continues from epoch {self.start_epoch}")

    def _compare(self, saved: dict[str, Any], mine: dict[str, Any], *, path: Path) -> None:
        if saved["model"] != mine["model"] or saved["dataset"] != mine["dataset"]:
            raise checkpoint.CheckpointError(
                f"{path}: a checkpoint of {saved['model']} on {saved['dataset']}, "
                f"not of {mine['model']} on {mine['dataset']}"
            )
        key = checkpoint.FINGERPRINT
        if saved.get(key, mine.get(key)) != mine.get(key):
            raise checkpoint.CheckpointError(
                f"{path}: trained on other files of {mine['dataset']} (its items have other numbers); resume "
                "on the files it was trained on"
            )
        may_differ = {
            key,
            "resume_from",
            "epochs",
            "device",
            "gpu_id",
            "data_path",
            "checkpoint_dir",
            "stopping_step",
        }
        may_differ |= {"show_progress", "state", "config_files", "worker"}
        may_differ |= {"evaluator", "index", "index_factory", "index_parameters", "index_spread", "rank_from"}
        for key in sorted((saved.keys() | mine.keys()) - may_differ):
            if saved.get(key) != mine.get(key):
                self.logger.warning(
                    f"{key} is {mine.get(key)!r} but was {saved.get(key)!r} in {path}: "
                    "the run will not equal an uninterrupted one"
                )


def _plain_result(result: dict[str, Any] | None) -> dict[str, float] | None:
    return None if result is None else {key: float(value) for key, value in result.items()}


def _random_state() -> dict[str, Any]:
    _, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 (RecBole draws from it)
    version, internal, gauss_next = random.getstate()
    return {
        "python": [version, list(internal), gauss_next],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _restore_random_state(state: dict[str, Any]) -> None:
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
