"""What every retrieval model of this package shares: tokens in, loss and scores out, written once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_kuaiformer.config import (
    AttributeSettings,
    ObjectiveSettings,
    TrainingSettings,
    WindowSettings,
    check_no_negative_sampling,
)
from recbole_kuaiformer.data.dataset import TARGET_IDS, TARGET_ROWS, TARGET_UNSEEN, RetrievalDataset
from recbole_kuaiformer.data.history import LOG_ROW
from recbole_kuaiformer.encoders.base import HistoryEncoder
from recbole_kuaiformer.encoders.features import ItemTokens
from recbole_kuaiformer.losses import processes
from recbole_kuaiformer.losses.best_of_interests import best_of_interests, summed_over_rows
from recbole_kuaiformer.losses.candidates import (
    NEVER,
    Candidates,
    KnownPositives,
    draw_candidates,
    negative_mask,
)
from recbole_kuaiformer.losses.item_frequency import CountFrequency, StreamingFrequency
from recbole_kuaiformer.losses.sampled_softmax import sampled_softmax
from recbole_kuaiformer.losses.separation import mean_squared_cosine
from recbole_kuaiformer.models.attributes import attributes_of, item_values
from recbole_kuaiformer.settings import Settings

SCORES_AT_ONCE = 2**25  # interest x item scores held at a time when a whole catalogue is ranked
SCORES_IN_TRAINING = {"cpu": 2**20}  # 4 MiB: about a core's cache
LEAST_ROWS = 32  # at a time, where SCORES_AT_ONCE admits them: fewer cost more in passes over the items


class RetrievalModel(SequentialRecommender):
    """A RecBole sequential model whose score is max_r(u_r · x) over K interests (Eq. 9 of KuaiFormer).

    A subclass builds the encoder. RecBole's Interactions come in with histories padded on the right
    (``item_id_list`` [B, L], ``item_length`` [B], ``<attribute>_list``); training batches carry several
    targets for each history (``target_ids``, ``target_unseen`` [B, P]; with ``mask_history`` also their
    ``target_rows``).
    """

    input_type = InputType.POINTWISE
    settings: type[Settings]
    encoder: HistoryEncoder

    def __init__(self, config: Any, dataset: RetrievalDataset) -> None:
        super().__init__(config, dataset)
        self.objective = ObjectiveSettings.read(config)
        settings = AttributeSettings.read(config)
        attributes = attributes_of(dataset, settings=settings)
        self.list_suffix = config["LIST_SUFFIX"]
        self.interaction_attributes = tuple(a.name for a in attributes if a.source == "interaction")
        self.tokens = ItemTokens(
            self.n_items,
            hidden_size=config["hidden_size"],
            attributes=attributes,
            item_values=item_values(dataset, attributes=attributes),
            item_std=settings.initializer_range,
            attribute_size=settings.attribute_size,
            target_attributes=settings.target_attributes,
            residual=settings.attribute_fusion == "residual",
        )
        self.encoder = self.build_encoder(config)
        self.frequency: CountFrequency | StreamingFrequency = self._build_frequency(dataset)
        masks = self.objective.mask_known_positives or self.objective.mask_history
        self.known_positives = self._build_known_positives(dataset) if masks else None

    @classmethod
    def check(cls, config: Any) -> None:
        """Every key this model reads, checked before any data is read.

        Raises:
            SettingsError: names the key at fault.
        """
        check_no_negative_sampling(config)
        for settings in (
            WindowSettings,
            AttributeSettings,
            ObjectiveSettings,
            TrainingSettings,
            cls.settings,
        ):
            settings.read(config)

    def build_encoder(self, config: Any) -> HistoryEncoder:
        """The encoder that the configuration asks for; must be a ``torch.nn.Module``."""
        raise NotImplementedError

    def _build_frequency(self, dataset: RetrievalDataset) -> CountFrequency | StreamingFrequency:
        objective = self.objective
        if objective.item_frequency == "streaming":
            return StreamingFrequency(
                self.n_items,
                rate=objective.streaming_rate,
                initial_gap=objective.streaming_initial_gap,
                n_hashes=objective.streaming_hashes,
                n_slots=objective.streaming_slots,
            )
        return CountFrequency(dataset.target_counts())

    def _build_known_positives(self, dataset: RetrievalDataset) -> KnownPositives:
        rows: Tensor = dataset.inter_feat[LOG_ROW]
        rows = torch.cat([torch.from_numpy(dataset.log.starts)[rows].unique(), rows])
        users, items = torch.from_numpy(dataset.log.user_ids), torch.from_numpy(dataset.log.item_ids)
        return KnownPositives(users[rows], items[rows], rows=rows, n_items=self.n_items)

    # ---- encoding ------------------------------------------------------------------------------------

    def interests(self, interaction: Interaction, *, n_unseen: Tensor | None = None) -> Tensor:
        """Interest vectors [B, P, K, D]; with cosine similarity of length 1.

        Args:
            interaction: histories, padded on the right; longer ones are cut to their newest items.
            n_unseen: [B, P] newest items hidden from each target; None is one target after the last item.
        """
        item_ids, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        columns = _right_aligned(lengths, width=item_ids.shape[1], max_length=self.max_seq_length)
        valid, columns = columns >= 0, columns.clamp(min=0)
        rows = torch.arange(len(lengths), device=lengths.device)[:, None]
        values = {
            name: interaction[name + self.list_suffix][rows, columns] for name in self.interaction_attributes
        }
        tokens = self.tokens(torch.where(valid, item_ids[rows, columns], 0), values=values)
        n_unseen = torch.zeros_like(lengths)[:, None] if n_unseen is None else n_unseen
        more = self.encoder_inputs(interaction, columns=columns)
        return self._normalised(self.encoder(tokens, valid=valid, n_unseen=n_unseen, **more))

    def encoder_inputs(self, interaction: Interaction, *, columns: Tensor) -> dict[str, Tensor]:  # noqa: ARG002 (for overriding)
        """What the encoder reads beside the tokens, whose ``columns`` [B, L] in the interaction are given."""
        return {}

    def user_vectors(self, interaction: Interaction) -> Tensor:
        """Interest vectors [B, K, D] of one target after each history: what an index is searched with."""
        return self.interests(interaction)[:, 0]

    def item_vectors(self, item_ids: Tensor | None = None) -> Tensor:
        """Target vectors [M, D] of the given ids, or of all N (row 0 is padding)."""
        if item_ids is None:
            item_ids = torch.arange(self.n_items, device=self.tokens.ids.weight.device)
        return self._normalised(self.tokens.items(item_ids))

    def item_vectors_of_attributes(self, values: dict[str, Tensor]) -> Tensor:
        """Target vectors [M, D] of items that have no row in the id table, from attributes [M] or [M, S]."""
        return self._normalised(self.tokens.items_of_attributes(values))

    def _normalised(self, vectors: Tensor) -> Tensor:
        vectors = vectors.float() if vectors.dtype == torch.bfloat16 else vectors
        if self.objective.similarity == "dot":
            return vectors
        return nn.functional.normalize(vectors, dim=-1)

    # ---- training ------------------------------------------------------------------------------------

    def forward(self, interaction: Interaction) -> Tensor:
        """The training loss, where data-parallel training calls it."""
        return self.calculate_loss(interaction)

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Mean loss over all targets of the batch (Eq. 10–12 with the configured candidates).

        Where several processes share a batch, candidates and frequencies are those of the whole batch, and
        each process's loss is weighted so that their average is the mean over all targets.
        """
        target_ids = interaction[TARGET_IDS]
        is_target = target_ids > 0
        mine = target_ids[is_target]
        interests = self.interests(interaction, n_unseen=interaction[TARGET_UNSEEN])[is_target]
        parts = processes.of_all(mine)
        positive_ids, before = torch.cat(parts), sum(map(len, parts[: processes.number()]))
        self.frequency.observe(positive_ids)
        candidates = draw_candidates(
            self.objective.negatives,
            positive_ids,
            q=self.frequency(len(positive_ids)),
            n_negatives=self.objective.n_negatives,
            deduplicate=self.objective.deduplicate_candidates,
        ).of_rows(before, n_rows=len(mine))
        if len(mine) == 0 < len(positive_ids):  # this process has no share of a small batch
            return interests.sum() * 0
        users, windows = interaction[self.USER_ID], is_target.nonzero()[:, 0]
        log_rows: Tensor = interaction[TARGET_ROWS][is_target] if self.objective.mask_history else mine

        def negative(rows: slice) -> Tensor:
            mask = negative_mask(mine[rows], candidates.item_ids)
            if self.known_positives is None:
                return mask
            some, of_row = windows[rows].unique(return_inverse=True)
            since: Tensor = self.known_positives(users[some], candidates.item_ids)
            if self.objective.mask_known_positives:  # of which the history is a part
                return mask & (since == NEVER)[of_row]
            return mask & (since[of_row] >= log_rows[rows, None])

        # In 8 bits of bfloat16 a score at temperature .05 would be off by up to .06.
        with torch.autocast(interests.device.type, enabled=False):
            loss = self._softmax(interests, positive_ids=mine, candidates=candidates, negative=negative)
            if self.objective.interest_separation:
                loss = loss + self.objective.interest_separation * mean_squared_cosine(interests)
        return loss * (len(parts) * len(mine) / len(positive_ids))

    def _softmax(
        self,
        interests: Tensor,
        *,
        positive_ids: Tensor,
        candidates: Candidates,
        negative: Callable[[slice], Tensor],
    ) -> Tensor:
        """Mean loss over the rows, of which so many are scored at a time as stay in a processor's cache."""

        def loss(interests: Tensor, positives: Tensor, items: Tensor, rows: slice) -> Tensor:
            if self.objective.interest_routing == "target":
                interests = _nearest(interests, positives)
            return len(interests) * sampled_softmax(
                self._routed((interests @ positives[..., None]).squeeze(-1)),
                self._candidate_scores(interests, items),
                negative=negative(rows),
                log_q=candidates.log_q,
                positive_log_q=None if candidates.positive_log_q is None else candidates.positive_log_q[rows],
                unique=candidates.unique,
                logq=self.objective.logq,
                label_smoothing=self.objective.label_smoothing,
                smoothing_form=self.objective.smoothing_form,
            )

        total = summed_over_rows(
            loss,
            interests / self.objective.temperature,  # temperature first, then log q
            positives=self.item_vectors(positive_ids),
            items=self.item_vectors(candidates.item_ids),
            rows_at_once=self._rows_at_once(interests.shape[1] * len(candidates.item_ids), interests.device),
        )
        return total / len(interests)

    def _rows_at_once(self, scores_per_row: int, device: torch.device) -> int:
        """So many rows as were asked for; else what fits a cache, but enough to pay for reading all items."""
        scores_per_row = max(scores_per_row, 1)
        if self.objective.scores_at_once is not None:
            return max(1, self.objective.scores_at_once // scores_per_row)
        most = SCORES_AT_ONCE // scores_per_row
        fitting = SCORES_IN_TRAINING.get(device.type, SCORES_AT_ONCE) // scores_per_row
        return max(1, fitting, min(LEAST_ROWS, most))

    def _candidate_scores(self, interests: Tensor, items: Tensor) -> Tensor:
        if self.objective.interest_routing != "log_sum_exp":
            return best_of_interests(interests, items)
        return self._routed((interests.flatten(0, 1) @ items.T).unflatten(0, interests.shape[:2]))

    def _routed(self, scores: Tensor) -> Tensor:
        """Scores [P, K, ...] → [P, ...]: one score out of K (Eq. 9)."""
        if self.objective.interest_routing == "log_sum_exp":
            return scores.logsumexp(1)
        return scores.max(1).values

    # ---- scoring -------------------------------------------------------------------------------------

    def predict(self, interaction: Interaction) -> Tensor:
        """Score max_r(u_r · x) of each row's own item, [B]."""
        interests = self.user_vectors(interaction)
        items = self.item_vectors(interaction[self.ITEM_ID])
        return (interests @ items[..., None]).squeeze(-1).amax(1)

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores max_r(u_r · x) of all items, [B, N]; column 0 is padding and means nothing."""
        interests, items = self.user_vectors(interaction), self.item_vectors()
        rows_at_once = max(1, SCORES_AT_ONCE // (interests.shape[1] * len(items)))
        return torch.cat([(part @ items.T).amax(1) for part in interests.split(rows_at_once)])


def _nearest(interests: Tensor, items: Tensor) -> Tensor:
    """Of K interests [P, K, D] the one whose product with the row's item [P, D] is largest: [P, 1, D].

    ComiRec's hard routing: this one alone is scored against every candidate.
    """
    best = (interests @ items[..., None]).squeeze(-1).argmax(1)
    return interests[torch.arange(len(best), device=best.device), best][:, None]


def _right_aligned(lengths: Tensor, *, width: int, max_length: int) -> Tensor:
    """Columns [B, L] of left-aligned rows that put the newest item last; −1 where there is none.

    >>> _right_aligned(torch.tensor([2, 3]), width=4, max_length=9).tolist()
    [[-1, 0, 1], [0, 1, 2]]
    """
    longest = max(1, min(int(lengths.max()), width, max_length))
    columns = torch.arange(-longest, 0, device=lengths.device) + lengths[:, None]
    return columns.clamp(min=-1)
