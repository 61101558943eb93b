"""The evaluator: any RecBole trainer, its full ranking done by an index."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.utils import EvaluatorType, ModelType
from torch import Tensor

from recbole_kuaiformer.checkpoint import FINGERPRINT, fingerprint
from recbole_kuaiformer.data.history import LOG_ROW, past_items
from recbole_kuaiformer.evaluation.collector import RankingCollector, UserBatch
from recbole_kuaiformer.evaluation.gathering import GatheringCollector
from recbole_kuaiformer.evaluation.settings import EvaluationSettings
from recbole_kuaiformer.index.base import IndexUnavailableError
from recbole_kuaiformer.index.choose import INDEXES, build_index
from recbole_kuaiformer.index.multi_interest import Exclusions
from recbole_kuaiformer.models.dot_product import DotProductModel, check_scores, dot_product_model
from recbole_kuaiformer.settings import SettingsError
from recbole_kuaiformer.value_checks import check_measured

CHECKED_USERS = 16  # rows of the first batch on which vectors must give the model's own scores


class IndexRanking:
    """Mixed into a trainer of RecBole: ``evaluate`` ranks by an index, and in either reading of history.

    RecBole's ``evaluate`` runs as it is. A UserBatch takes the place of the scores between
    ``_full_sort_batch_eval`` and the collector. The index is built at the first batch, after the weights
    were loaded, and dropped at the end. With ``evaluator: recbole`` and ``evaluate_history: kept`` nothing
    is touched, except that several processes rank each row once and evaluate all rows together.

    Raises:
        SettingsError: ``strict`` and the model or a metric cannot be served; or settings that contradict.
    """

    logger: Any
    config: Any
    model: Any
    device: torch.device
    tot_item_num: int
    evaluator: Any
    eval_collector: Any

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)  # type: ignore[call-arg]
        self.evaluation = EvaluationSettings.read(config)
        is_sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        if not is_sequential and self.evaluation.readings != ("kept",):
            self.logger.warning(
                f"evaluate_history, report_both: of no effect on {config['model']}; RecBole always leaves a "
                "user's history out of the ranking of models that are not sequential"
            )
        self._readings = self.evaluation.readings if is_sequential else ("masked",)
        self._vectors = self._served_vectors()
        self._said: set[str] = set()
        self._index_name, self._index_said = self.evaluation.index, False
        self.eval_collector = GatheringCollector(config)
        if self._vectors is not None or self._masks:
            self.eval_collector = RankingCollector(
                config, readings=self._readings, rank_from=self.evaluation.rank_from
            )

    @property
    def _masks(self) -> bool:
        return self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL and "masked" in self._readings

    def _served_vectors(self) -> DotProductModel | None:
        """The model's vectors where an index is asked for and can serve; otherwise RecBole's way."""
        if self.evaluation.evaluator == "recbole":
            return None
        vectors = dot_product_model(self.model)
        why = self._why_not(vectors)
        if why is None:
            return vectors
        if self.evaluation.strict:
            raise SettingsError(f"evaluator: faiss cannot serve this run: {why} (strict: True)")
        self.logger.warning(f"{why}; it is ranked RecBole's way")
        return None

    def _why_not(self, vectors: DotProductModel | None) -> str | None:
        name, config = self.config["model"], self.config
        if vectors is None:
            return (
                f"{name}: its score is not known to be a dot product (a model with user_vectors and "
                "item_vectors is served)"
            )
        if config["eval_type"] != EvaluatorType.RANKING:
            return f"metrics {config['metrics']}: they need the score of every row, not a ranking"
        mode = config["eval_args"]["mode"]
        modes = {*mode.values()} if isinstance(mode, dict) else {mode}
        if modes - {"full", None}:
            return f"eval_args: mode {sorted(map(str, modes))}: ranking among sampled items needs no index"
        return None

    def fit(self, train_data: Any, *args: Any, **kwargs: Any) -> Any:
        """RecBole's fit; the checkpoint's configuration also holds the dataset's fingerprint.

        Raises:
            SettingsError: valid_metric is not among what validation will measure.
        """
        recbole: Any = super()
        validates = (args[0] if args else kwargs.get("valid_data")) and self.config["eval_step"] > 0
        if validates and self._judges_by_metrics:
            check_measured(self.config)
        self.config[FINGERPRINT] = fingerprint(train_data._dataset)  # of loaders for knowledge graphs too
        return recbole.fit(train_data, *args, **kwargs)

    @property
    def _judges_by_metrics(self) -> bool:
        """Whether an epoch is judged as RecBole does it, not by a trainer of somebody's own."""
        owner = next(kind for kind in type(self).__mro__ if "_valid_epoch" in vars(kind))
        return owner.__module__.partition(".")[0] in ("recbole", "recbole_kuaiformer")

    # ---- RecBole's seam ------------------------------------------------------------------------------

    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: Any = None,
        show_progress: bool = False,
    ) -> Any:
        """RecBole's evaluate; the result also carries the other reading and an approximate index's recall."""
        recbole: Any = super()
        collector = self.eval_collector
        if not eval_data:
            return None
        if isinstance(collector, GatheringCollector):
            collector.share_out(eval_data)
        if not isinstance(collector, RankingCollector):
            return recbole.evaluate(eval_data, load_best_model, model_file, show_progress)
        self._eval_data = eval_data
        self._check(eval_data)
        try:
            result = recbole.evaluate(eval_data, load_best_model, model_file, show_progress)
            result.update(collector.index_recall())
            for name, struct in collector.other_structs.items():
                other = self.evaluator.evaluate(struct)
                result.update({f"{key}_{name}": value for key, value in other.items()})
            return result
        finally:
            collector.end()

    def _map_reduce(self, result: Any, num_sample: int) -> Any:
        """The result as it is: every process has that of all rows."""
        del num_sample
        return result

    def _full_sort_batch_eval(self, batched_data: Any) -> Any:
        recbole: Any = super()
        collector = self.eval_collector
        if not isinstance(collector, RankingCollector):
            return recbole._full_sort_batch_eval(batched_data)
        interaction, history, positive_u, positive_i = batched_data
        if self._vectors is None:
            interaction, scores, positive_u, positive_i = recbole._full_sort_batch_eval(batched_data)
            excluded = self._excluded(interaction, history, positives=(positive_u, positive_i))
            return interaction, UserBatch(None, scores, excluded), positive_u, positive_i
        interaction = interaction.to(self.device)
        interests = self._vectors.user_vectors(interaction)
        if collector.index is None:
            self._begin(interaction, interests)
        excluded = self._excluded(interaction, history, positives=(positive_u, positive_i))
        return interaction, UserBatch(interests, None, excluded), positive_u, positive_i

    def _begin(self, interaction: Any, interests: Tensor) -> None:
        assert self._vectors is not None
        items = self._vectors.item_vectors().detach().contiguous()
        first = slice(0, CHECKED_USERS)
        check_scores(self.model, interaction[first], interests=interests[first], items=items)
        asked = self.evaluation
        try:
            index, line = build_index(
                self._index_name,
                items,
                factory=asked.index_factory,
                parameters=asked.parameters,
                spread=asked.index_spread,  # type: ignore[arg-type]
            )
        except (IndexUnavailableError, ValueError) as error:
            raise SettingsError(str(error)) from error
        if not self._index_said:
            self.logger.info(f"{line}; {self._reading_line()}")
            self._index_said = True
        if items.is_cuda and index.is_exact:  # the trial of auto is held once, its outcome kept
            self._index_name = next(name for name, kind in INDEXES.items() if type(index) is kind)
        self.eval_collector.begin(index, items)

    def _reading_line(self) -> str:
        return "history: " + " and ".join(self._readings)

    def _say(self, line: str) -> None:
        if line not in self._said:
            self.logger.info(line)
            self._said.add(line)

    def _check(self, eval_data: Any) -> None:
        if not isinstance(eval_data, FullSortEvalDataLoader):
            if self._masks:
                raise SettingsError(
                    "evaluate_history, report_both: masked is a reading of the full ranking; set eval_args "
                    f"mode to full, it is {self.config['eval_args']['mode']}"
                )
            return
        if self._vectors is None:
            self._say(f"ranked by the full score matrix, exact; {self._reading_line()}")
        else:
            self.check_cut_offs(eval_data._dataset.item_num - 1)

    def check_cut_offs(self, n_items: int) -> None:
        """Refuse a cut-off beyond the catalogue.

        Raises:
            SettingsError: topk asks for more items than there are.
        """
        if max(self.config["topk"]) > n_items:
            raise SettingsError(
                f"topk: {self.config['topk']} exceeds the catalogue's {n_items} items; set it to at most that"
            )

    # ---- history -------------------------------------------------------------------------------------

    def _excluded(
        self, interaction: Any, history: Any, *, positives: tuple[Tensor, Tensor]
    ) -> dict[str, Exclusions]:
        """For each reading the items that leave each row's ranking; a target never does."""
        if history is not None:
            rows, item_ids = (part.to(self.device) for part in history)
            return {"masked": Exclusions.of(rows, item_ids)} if self._vectors is not None else {}
        if not self._masks:
            return {}
        targets = Exclusions.of(*(part.to(self.device) for part in positives))
        return {"masked": Exclusions.of(*self._past(interaction)).without(targets)}

    def _past(self, interaction: Any) -> tuple[Tensor, Tensor]:
        pairs = None
        if LOG_ROW in interaction:
            ends = interaction[LOG_ROW].cpu().numpy().astype(np.int64)
            pairs = past_items(self._eval_data._dataset, ends)
        if pairs is not None:
            rows, item_ids = (torch.from_numpy(part).to(self.device) for part in pairs)
            return rows, item_ids
        self._say(
            "history: masked leaves out the last MAX_ITEM_LIST_LENGTH items alone; this dataset "
            "(of pre-split files, or with a table of its own) tells no more"
        )
        item_ids = interaction[self.config["ITEM_ID_FIELD"] + self.config["LIST_SUFFIX"]]
        rows = torch.arange(len(item_ids), device=item_ids.device)[:, None].expand_as(item_ids)
        return rows[item_ids > 0], item_ids[item_ids > 0]
