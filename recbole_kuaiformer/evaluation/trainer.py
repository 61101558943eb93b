"""RecBole's trainer: one step loop for one and several processes, and checkpoints that resume exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from recbole.trainer import Trainer
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.clip_grad import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from recbole_kuaiformer import checkpoint
from recbole_kuaiformer.config import TrainingSettings
from recbole_kuaiformer.data.dataset import TARGET_IDS
from recbole_kuaiformer.evaluation.averaging import AveragedWeights
from recbole_kuaiformer.evaluation.optimizer import adam
from recbole_kuaiformer.evaluation.random_state import random_state, restore
from recbole_kuaiformer.evaluation.ranking import IndexRanking
from recbole_kuaiformer.evaluation.resuming import check_same_run, fitting
from recbole_kuaiformer.evaluation.schedule import recompute, schedule
from recbole_kuaiformer.losses import processes
from recbole_kuaiformer.settings import SettingsError

UNKNOWN_STEPS = -1  # of a checkpoint written before they were counted
STEPS_BETWEEN_CHECKS = 100  # of the loss for NaN: each check waits for the device


class TrainingError(RuntimeError):
    """Training cannot go on; the message says where it stopped and what to do."""


class RetrievalTrainer(IndexRanking, Trainer):
    """Writes the best epoch to ``saved_model_file``, as RecBole does, and every epoch to ``…-last.pth``.

    With ``resume_from`` (a ``…-last.pth``) training continues from the last epoch that was completed, and
    on one seed and CPU ends exactly where an uninterrupted run ends: the checkpoint holds the random
    states of every process, and an epoch's order depends on seed and epoch number alone. Both files hold
    plain types and load with torch's safe loader. Several processes take the steps that one would take.

    Raises:
        TrainingError: the loss or the weights became NaN or infinite, in all processes at once; the files
            of the epochs before stay as they are.
    """

    start_epoch: int
    cur_step: int
    best_valid_score: Any
    best_valid_result: Any
    train_loss_dict: dict[int, float]
    saved_model_file: str

    def __init__(self, config: Any, model: Any) -> None:
        self.settings = TrainingSettings.read(config)
        super().__init__(config, model)
        self._warn_of_masks()
        self.is_finished = False
        self._saves_last = False
        self._steps = 0  # of the optimiser, since training began
        self._schedule: LambdaLR | None = None
        decay = self.settings.ema_decay
        self._averages = None if decay is None else AveragedWeights(self.model, decay=decay)
        self._random_states: list[dict[str, Any]] = []
        self.saved_model_file = processes.object_of_first(self.saved_model_file)  # named by its clock
        if self.settings.compile_encoder is not None:
            self._compile(self.settings.compile_encoder)
        if not config["single_spec"]:
            self.distributed_model = self._data_parallel()

    def _warn_of_masks(self) -> None:
        """Items that training never ranks below a target fill the lists of a ranking that keeps them."""
        masks = [key for key in ("mask_history", "mask_known_positives") if self.config[key]]
        chooses_masked = str(self.config["valid_metric"]).endswith("_masked")
        if masks and self.evaluation.evaluate_history == "kept" and not chooses_masked:
            self.logger.warning(
                f"{', '.join(masks)}: training does not rank what a user had, but evaluate_history: kept "
                "does, and chooses the epoch by it; with a full ranking set evaluate_history to masked"
            )

    def _compile(self, backend: str) -> None:
        known = torch.compiler.list_backends(exclude_tags=())
        if backend not in known:
            raise SettingsError(
                f"compile_encoder: {backend!r} is not known; torch knows {', '.join(known)}; "
                "~ compiles nothing"
            )
        self.model.encoder.compile(backend=backend, dynamic=True)  # widths differ from batch to batch

    def _data_parallel(self) -> DistributedDataParallel:
        """In the place of RecBole's, which has made weights and buffers the same everywhere.

        Buffers stay so by themselves and are not sent at each step. Layers may go unused in some batches:
        group tokens, where all histories are short.
        """
        del self.distributed_model
        wrap: Any = DistributedDataParallel
        known = signature(wrap.__init__).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        device_ids = [self.device] if self.device.type == "cuda" else None
        options = {"device_ids": device_ids, "find_unused_parameters": True, buffers: False}
        return wrap(self.model, **options)  # type: ignore[no-any-return]

    def _build_optimizer(self, **kwargs: Any) -> Optimizer:
        settings = self.settings
        if kwargs or not settings.is_adam:
            return super()._build_optimizer(**kwargs)  # type: ignore[no-any-return]
        return adam(
            self.model,
            learner=settings.learner.lower(),
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            betas=(settings.adam_betas[0], settings.adam_betas[1]),
            fused=settings.fused_optimizer,
            decay_embeddings=settings.decay_embeddings,
        )

    @property
    def expected_epochs(self) -> int:
        """Over which the learning rate falls: fewer than ``epochs`` where time will end the training."""
        return int(self.epochs)

    @property
    def last_checkpoint(self) -> Path:
        """Where the state after the last completed epoch is kept."""
        return checkpoint.last_beside(Path(self.saved_model_file))

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
            if self._averages is not None:
                self._averages.into_model()
            return self.best_valid_score, self.best_valid_result
        self._saves_last = saved
        steps_per_epoch = -(-len(train_data) // self.settings.accumulate_batches)
        self._count_steps(self.start_epoch * steps_per_epoch)
        self._begin_schedule(steps_per_epoch=steps_per_epoch)
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
        if self._averages is not None:
            self._averages.into_model()
        return result  # type: ignore[no-any-return]

    def _count_steps(self, n_steps: int) -> None:
        """Where the schedule goes on: after so many steps as the epochs before would take now."""
        if self._steps not in (n_steps, UNKNOWN_STEPS):
            self.logger.warning(
                f"{self._steps} steps were taken in the {self.start_epoch} epochs before, which would now be "
                f"{n_steps}, as train_batch_size is another; the learning rate goes on as after {n_steps}"
            )
        self._steps = n_steps

    def _begin_schedule(self, *, steps_per_epoch: int) -> None:
        asked, n_epochs = self.settings, self.expected_epochs
        n_steps = n_epochs * steps_per_epoch
        if asked.schedule == "constant" and not asked.warmup_steps:
            return
        if asked.warmup_steps >= n_steps:
            self.logger.warning(
                f"warmup_steps: {asked.warmup_steps} are no fewer than the {n_steps} steps of {n_epochs} "
                "epochs; learning_rate is never reached"
            )
        self._schedule = schedule(
            self.optimizer,
            name=asked.schedule,
            warmup_steps=asked.warmup_steps,
            n_steps=lambda: self.expected_epochs * steps_per_epoch,
            floor=asked.schedule_floor,
            first_step=self._steps,
        )
        self.logger.info(
            f"learning rate: {asked.schedule} over {n_steps} steps at most, {asked.warmup_steps} to warm up, "
            f"from step {self._steps} on; floor {asked.schedule_floor:g} of {self.learning_rate:g}"
        )

    # ---- one epoch -----------------------------------------------------------------------------------

    def _train_epoch(
        self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False
    ) -> float:
        """Sum over the epoch's batches of the mean loss of all their targets, in all processes."""
        if epoch_idx > self.start_epoch:
            self._save_last(epoch_idx - 1)
        train_data.set_epoch(epoch_idx)
        self._epoch = epoch_idx
        if self._schedule is not None:
            recompute(self._schedule)  # the epochs to expect may be others now
        self.model.train()
        loss_func = loss_func or (
            self.model.calculate_loss if self.config["single_spec"] else self.distributed_model
        )
        bar = tqdm(train_data, ncols=100, desc=f"Train {epoch_idx:>5}", disable=not show_progress)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for batches in _in_groups(bar, size=self.settings.accumulate_batches):
            total += self._step(batches, loss_func=loss_func)
            if self._steps % STEPS_BETWEEN_CHECKS == 0:
                self._check_nan(processes.total(total))
        total = processes.total(total) / processes.n_processes()
        self._check_nan(total)
        self._check_weights()
        return float(total)

    def _step(self, batches: list[Any], *, loss_func: Callable[[Any], Tensor]) -> Tensor:
        """One step of the optimiser; returns the sum of the batches' losses, not synchronised."""
        batches = [batch.to(self.device) for batch in batches]
        self.optimizer.zero_grad()
        losses = []
        for number, (batch, share) in enumerate(zip(batches, _shares(batches))):
            with self._without_exchange(number < len(batches) - 1):
                with self._in_precision():
                    loss = loss_func(batch)
                (loss * share).backward()
            losses.append(loss.detach())
        if self.clip_grad_norm:
            clip_grad_norm_(self.model.parameters(), **self.clip_grad_norm)
        self.optimizer.step()
        self._steps += 1
        if self._schedule is not None:
            self._schedule.step()
        if self._averages is not None:
            self._averages.update()
        return torch.stack(losses).sum()

    def _without_exchange(self, waits: bool) -> AbstractContextManager[None]:
        """Within the block gradients stay in this process, if they wait for those of further batches."""
        if not waits or self.config["single_spec"]:
            return nullcontext()
        return self.distributed_model.no_sync()

    def _in_precision(self) -> AbstractContextManager[Any]:
        is_half = self.settings.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=is_half)

    def _check_nan(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise self._broken_off(f"the training loss became {loss.item()}")

    def _check_weights(self) -> None:
        """A finite loss may still have led to a last step into NaN: nothing of it may be saved."""
        with torch.no_grad():
            finite = torch.stack([torch.isfinite(p).all() for p in self.model.parameters()]).all()
        if not finite:
            raise self._broken_off("the weights became NaN or infinite")

    def _broken_off(self, what: str) -> TrainingError:
        return TrainingError(
            f"{what} in epoch {self._epoch}; lower learning_rate or raise temperature, or set "
            f"clip_grad_norm. The epochs before it are kept in {self.last_checkpoint} (if there were any)"
        )

    def _generate_train_loss_output(self, *args: Any) -> Any:
        line = super()._generate_train_loss_output(*args)
        if self._schedule is None:
            return line
        return f"{line} learning rate {self._schedule.get_last_lr()[0]:.3g} after step {self._steps}"

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> Any:
        """RecBole's, of the averaged weights if there are any; the score that decides is process 0's."""
        with nullcontext() if self._averages is None else self._averages.in_place():
            score, result = super()._valid_epoch(valid_data, show_progress=show_progress)
        return processes.object_of_first(score), result

    # ---- checkpoints ---------------------------------------------------------------------------------

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        path = Path(kwargs.pop("saved_model_file", self.saved_model_file))
        self._random_states = processes.objects_of_all(random_state())
        if processes.number() != 0:
            return
        is_best = path != self.last_checkpoint
        with self._averages.in_place() if is_best and self._averages is not None else nullcontext():
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
            "steps": self._steps,
            "averaged": {} if self._averages is None else self._averages.values,
            "random_state": self._random_states[0],
            "other_random_states": self._random_states[1:],
        }

    def resume_checkpoint(self, resume_file: str | Path) -> None:
        """Continue from a ``…-last.pth`` checkpoint, as if training had never been interrupted.

        Raises:
            FileNotFoundError: the checkpoint, or the best epoch's file beside it, is not there.
            CheckpointError: the file is no readable checkpoint, or is of another model, or of one that
                settings make another.
        """
        path = Path(resume_file)
        state = checkpoint.load(path, device=self.device)
        mine = checkpoint.plain_config(self.config)["final"]
        differing = [*check_same_run(state["config"]["final"], mine, path=path)]
        for line in differing:
            self.logger.warning(line)
        best = path.with_name(state["best_model_file"])
        if not best.is_file() and math.isfinite(state["best_valid_score"]):  # else none was validated
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
        with fitting(path, differing=differing):
            self.model.load_state_dict(state["state_dict"])
            self.model.load_other_parameter(state["other_parameter"])
            self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:  # the rate of this run, which a schedule starts from
            group["lr"] = group["initial_lr"] = self.learning_rate
        self._steps = state.get("steps", UNKNOWN_STEPS)
        if self._averages is not None:
            self._averages.load(state.get("averaged", {}))
        states = [state["random_state"], *state.get("other_random_states", [])]
        if processes.number() < len(states):  # of fewer processes: dropout differs anyhow
            restore(states[processes.number()])
        self.logger.info(f"Checkpoint {path} loaded. Training continues from epoch {self.start_epoch}")


def _plain_result(result: dict[str, Any] | None) -> dict[str, float] | None:
    return None if result is None else {key: float(value) for key, value in result.items()}


def _in_groups(batches: Iterable[Any], *, size: int) -> Iterator[list[Any]]:
    iterator = iter(batches)
    while group := [*islice(iterator, size)]:
        yield group


def _shares(batches: list[Any]) -> list[float]:
    """Each batch's share of all targets of the group, in all processes."""
    if len(batches) == 1:
        return [1.0]
    counts = processes.total(torch.stack([(batch[TARGET_IDS] > 0).sum() for batch in batches]))
    return (counts / counts.sum()).tolist()
