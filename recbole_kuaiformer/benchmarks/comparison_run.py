"""One run of a comparison, in the process and the folder of its own: train, evaluate in both readings."""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import ModelType, get_model, get_trainer, init_logger, init_seed

from recbole_kuaiformer import plugin
from recbole_kuaiformer.benchmarks import flops, measuring, running
from recbole_kuaiformer.benchmarks.continued_training import Continued, can_continue
from recbole_kuaiformer.benchmarks.damaged_files import RANKS
from recbole_kuaiformer.benchmarks.epoch_clock import EpochClock, OutOfTimeError, Timed
from recbole_kuaiformer.benchmarks.interrupted_training import last_epoch
from recbole_kuaiformer.benchmarks.user_ranks import Noting, UserRanks, by_reading, gini, ranks_of
from recbole_kuaiformer.models.dot_product import dot_product_model

Row = dict[str, Any]

USERS_AT_ONCE = 256  # of models that are not sequential, whose eval_batch_size counts users x items


class Run:
    """A model, its data and its trainer, made as RecBole's ``run_recbole`` makes them.

    Args:
        case: ``comparison_settings.case``'s.
        clock: keeps epochs and seconds.
    """

    def __init__(self, case: dict[str, Any], *, clock: EpochClock) -> None:
        self.case, self.clock = case, clock
        last = last_epoch(case["model"], clock=clock)
        settings = dict(case["settings"])
        if last is not None and case["model"] in plugin.MODELS:
            settings["resume_from"] = str(last)
        self.config = config = Config(case["model"], case["dataset"], config_dict=settings)
        init_seed(config["seed"], config["reproducibility"])
        init_logger(config)
        dataset = create_dataset(config)
        n_items = dataset.item_num - 1
        config["topk"] = [k for k in config["topk"] if k <= n_items] or [n_items]
        config["valid_metric"] = _within(str(config["valid_metric"]), n_items=n_items)
        if config["MODEL_TYPE"] != ModelType.SEQUENTIAL:
            config["eval_batch_size"] = USERS_AT_ONCE * dataset.item_num
        self.train_data, self.valid_data, self.test_data = data_preparation(config, dataset)
        init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
        self.model = get_model(config["model"])(config, self.train_data._dataset).to(config["device"])
        self.trainer = self._trainer(Timed, config=_for_validation(config), is_trained=True)
        self.trainer.clock, self.trainer.last = clock, last

    def _trainer(self, mixin: type[Any], *, config: Any, is_trained: bool = False) -> Any:
        kind = get_trainer(config["MODEL_TYPE"], config["model"])
        goes_on = is_trained and can_continue(self.model, trainer=kind)
        mixins = (Continued, mixin) if goes_on else (mixin,)
        return type(kind.__name__, (*mixins, kind), {})(config, self.model)

    @property
    def first_reading(self) -> str:
        """The reading whose numbers go without a name in RecBole's results."""
        is_sequential = self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        return str(self.config["evaluate_history"]) if is_sequential else "masked"

    def train(self, *, validated: Callable[[int, float], None] | None = None) -> None:
        """Train to the end, or until the time is up.

        Args:
            validated: RecBole's callback_fn, in place of the clock's.
        """
        try:
            self.trainer.fit(
                self.train_data,
                self.valid_data,
                saved=True,
                show_progress=False,
                callback_fn=validated or self.clock.validated,
            )
        except OutOfTimeError:
            self.trainer.logger.info(f"time budget of {self.clock.budget} s spent; the best epoch is kept")

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Test metrics of the best epoch by reading; the ranks of all users go to ranks.npz if asked for."""
        judge = self._judge(self.config)
        result = judge.evaluate(
            self.test_data, load_best_model=True, model_file=self.trainer.saved_model_file
        )
        # The lists below would hide what training took.
        self.peak_mib = measuring.process_mib("VmHWM")
        is_cuda = torch.cuda.is_available()
        self.cuda_peak_mib = torch.cuda.max_memory_allocated() / 2**20 if is_cuda else None
        lists = copy.deepcopy(self.config)
        lists["metrics"] = ["ItemCoverage", *(["GAUC"] if self.case["per_user"] else [])]
        second = self._judge(lists)
        of_lists = second.evaluate(self.test_data, load_best_model=False)
        result.update({key: value for key, value in of_lists.items() if not key.startswith("gauc")})
        readings: dict[str, dict[str, float]] = {}
        for reading, metric, value in by_reading(result, first=self.first_reading):
            readings.setdefault(reading, {})[metric] = value
        for of_reading, struct in zip(readings.values(), second.structs):
            for k in lists["topk"]:
                value = gini(struct["rec.items"][:, :k], struct["data.num_items"])
                of_reading[f"giniindex@{k}"] = round(value, self.config["metric_decimal_place"])
        self.has_ranks = False
        if self.case["per_user"]:
            self._save_ranks(judge, second, readings=[*readings])
        self.users = len(judge.users)
        return readings

    def _judge(self, config: Any) -> Any:
        judge = self._trainer(Noting, config=config)
        judge.eval_collector.data_collect(self.train_data)
        return judge

    def _save_ranks(self, judge: Any, second: Any, *, readings: list[str]) -> None:
        hits = [struct["rec.topk"] for struct in judge.structs]
        if any(bool((one[:, -1] != 1).any()) for one in hits):
            judge.logger.warning("no ranks are saved: some users have several targets, or none")
            return
        pairs = zip(hits, (struct["rec.meanrank"] for struct in second.structs))
        ranks = {name: ranks_of(*pair).numpy() for name, pair in zip(readings, pairs)}
        dataset = self.train_data._dataset
        users = dataset.id2token(dataset.uid_field, judge.users.numpy()).astype(str)
        items = dataset.id2token(dataset.iid_field, judge.targets.numpy()).astype(str)
        UserRanks(users, items, ranks).save(Path(RANKS))
        self.has_ranks = True


def user_mflops(run: Run) -> float | None:
    """Millions of operations that encode a test user, on average over the first batch, as it is padded.

    None for models that are not sequential, and for those whose score is no dot product.
    """
    vectors = dot_product_model(run.model)
    if vectors is None or run.config["MODEL_TYPE"] != ModelType.SEQUENTIAL:
        return None
    interaction = next(iter(run.test_data))[0].to(run.config["device"])
    run.model.eval()
    return flops.encoding_mflops(vectors, interaction)


def _for_validation(config: Any) -> Any:
    """The same, but that an epoch is judged by what chooses it alone: depth costs more than training.

    Not where many scores are equal, as Pop's are: torch.topk places those differently for another depth.
    These are judged by what chooses the epoch beside all else.
    """
    metric, is_cut, k = str(config["valid_metric"]).partition("@")
    lean = copy.deepcopy(config)
    if is_cut and config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
        lean["topk"], lean["metrics"], lean["report_both"] = [int(k)], [metric], False
    elif is_cut:
        lean["topk"] = sorted({*config["topk"], int(k)})
        if metric.lower() not in [name.lower() for name in config["metrics"]]:
            lean["metrics"] = [*config["metrics"], metric]
    return lean


def _within(metric: str, *, n_items: int) -> str:
    """The metric at a cut-off that the catalogue has; the metric itself where it fits, or has none.

    >>> _within("NDCG@10", n_items=7), _within("NDCG@5", n_items=7), _within("GAUC", n_items=7)
    ('NDCG@7', 'NDCG@5', 'GAUC')
    """
    name, is_cut, k = metric.partition("@")
    return f"{name}@{n_items}" if is_cut and int(k) > n_items else metric


def row(case: dict[str, Any]) -> Row:
    """What the run came to: metrics by reading, and what they took."""
    start = time.perf_counter()
    made = {"commit": measuring.commit(), "date": running.today()}  # not of a later change, under a long run
    clock = EpochClock(Path("epochs.json"), budget=case["time_budget"])
    run = Run(case, clock=clock)
    run.train()
    readings = run.evaluate()
    trainer = run.trainer
    return {
        "model": case["model"],
        "dataset": case["dataset"],
        "seed": case["seed"],
        "readings": readings,
        "valid_metric": str(run.config["valid_metric"]),
        "valid_score": float(trainer.best_valid_score),
        "valid_reading": run.first_reading,
        "epochs": clock.epochs,
        "best_epoch": clock.best_epoch(bigger=bool(run.config["valid_metric_bigger"])),
        "train_seconds": clock.seconds,
        "seconds": time.perf_counter() - start,
        "peak_mib": run.peak_mib,
        "cuda_peak_mib": run.cuda_peak_mib,
        "parameters": sum(values.numel() for values in run.model.parameters()),
        "test_users": run.users,
        "items": run.train_data._dataset.item_num - 1,
        "user_mflops": user_mflops(run),
        "per_user": bool(case["per_user"]),
        "has_ranks": run.has_ranks,
        "checkpoint": str(trainer.saved_model_file),
        "made": {**made, **measuring.machine()},
    }


def main() -> None:
    """Measure the case that the argument describes."""
    running.end_with_parent()
    case = json.loads(sys.argv[1])
    del sys.argv[1:]  # RecBole would read it
    print(json.dumps(row(case)))


if __name__ == "__main__":
    main()
