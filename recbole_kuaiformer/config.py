"""The keys of data, loss and training; those of a shape are beside the model, those of ranking in evaluation.

Defaults live in ``properties/`` alone. A key that is missing, unknown, of the wrong type or out of range
is an error that names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recbole_kuaiformer.bucket_options import BUCKET_KEYS, check_buckets
from recbole_kuaiformer.settings import NOTHING, Settings, SettingsError, nearest

# What becomes of the items a user already had: they stay in the ranking, or they leave it.
READINGS = ("kept", "masked")


@dataclass(frozen=True, kw_only=True)
class WindowSettings(Settings):
    """How a log is cut into windows."""

    MAX_ITEM_LIST_LENGTH: int
    window_targets: int
    targets_per_window: int | None
    windows_per_user: int | None
    target_horizon: int | None
    target_horizon_seconds: float | None
    stochastic_length_alpha: float | None
    stochastic_length_choice: str
    train_batch_size: int

    def __post_init__(self) -> None:
        for key in ("MAX_ITEM_LIST_LENGTH", "window_targets", "train_batch_size"):
            self._require(key, that=getattr(self, key) >= 1, what="at least 1")
        for key in ("targets_per_window", "windows_per_user"):
            value = getattr(self, key)
            self._require(key, that=value is None or value >= 1, what="at least 1, or ~ for all")
        self._check_horizon()
        alpha = self.stochastic_length_alpha
        self._require(
            "stochastic_length_alpha", that=alpha is None or 0 < alpha <= 2, what="in (0, 2], or ~ for none"
        )
        self._one_of("stochastic_length_choice", ("recent", "uniform", "weighted"))

    def _check_horizon(self) -> None:
        events, seconds = self.target_horizon, self.target_horizon_seconds
        self._require("target_horizon", that=events is None or events >= 1, what="at least 1, or ~")
        self._require(
            "target_horizon_seconds", that=seconds is None or seconds > 0, what="positive, or ~ for no limit"
        )
        if events is None and seconds is None:
            raise SettingsError(
                "target_horizon: ~ (no limit in events) needs target_horizon_seconds; set one of the two"
            )
        if events == 1 and seconds is not None:
            raise SettingsError(
                f"target_horizon_seconds: {seconds} changes nothing with target_horizon: 1, the next event "
                "alone; set target_horizon to ~ for time alone, or to the most events"
            )

    @property
    def span(self) -> int:
        """Most interactions that one window may have to train on."""
        return min(self.window_targets, self.MAX_ITEM_LIST_LENGTH)


@dataclass(frozen=True, kw_only=True)
class DataSettings(Settings):
    """How any model's sequences are kept, RecBole's own included."""

    sequences: str

    def __post_init__(self) -> None:
        self._one_of("sequences", ("table", "log"))


@dataclass(frozen=True, kw_only=True)
class AttributeSettings(Settings):
    """What a token is made of: the item's vector, and the attributes beside it."""

    initializer_range: float | None
    attributes: dict[str, Any]
    attribute_size: int
    target_attributes: bool
    attribute_fusion: str

    def __post_init__(self) -> None:
        self._one_of("attribute_fusion", ("mlp", "residual"))
        self._require("attribute_size", that=self.attribute_size >= 1, what="at least 1")
        std = self.initializer_range
        self._require("initializer_range", that=std is None or std > 0, what="positive, or ~")
        for name, options in self.attributes.items():
            check_buckets(options or {}, where=f"attributes: {name}", known=(*BUCKET_KEYS, "missing_value"))


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings(Settings):
    """The training objective: who competes, how they are corrected, how the target is smoothed."""

    similarity: str
    temperature: float
    interest_routing: str
    negatives: str
    n_negatives: int
    deduplicate_candidates: bool
    mask_known_positives: bool
    mask_history: bool
    logq: str
    item_frequency: str
    streaming_rate: float
    streaming_initial_gap: float
    streaming_hashes: int
    streaming_slots: int | None
    label_smoothing: float
    smoothing_form: str
    interest_separation: float
    scores_at_once: int | None

    def __post_init__(self) -> None:
        scores = self.scores_at_once
        self._require("scores_at_once", that=scores is None or scores >= 1, what="at least 1, or ~")
        self._one_of("similarity", ("cosine", "dot"))
        self._one_of("interest_routing", ("max", "log_sum_exp", "target"))
        self._one_of("negatives", ("in_batch", "uniform", "mixed", "all"))
        self._one_of("logq", ("none", "both", "negatives"))
        self._one_of("item_frequency", ("counts", "streaming"))
        self._one_of("smoothing_form", ("paper", "uniform"))
        self._require("temperature", that=self.temperature > 0, what="positive")
        self._require("n_negatives", that=self.n_negatives >= 1, what="at least 1")
        self._require("label_smoothing", that=0 <= self.label_smoothing < 1, what="in [0, 1)")
        self._require("interest_separation", that=self.interest_separation >= 0, what="at least 0")
        self._require("streaming_rate", that=0 < self.streaming_rate <= 1, what="in (0, 1]")
        self._require("streaming_initial_gap", that=self.streaming_initial_gap >= 1, what="at least 1")
        self._require("streaming_hashes", that=self.streaming_hashes >= 1, what="at least 1")
        if self.streaming_slots is None and self.streaming_hashes != 1:
            raise SettingsError(
                "streaming_hashes: several hash functions need streaming_slots; without it every item has a "
                "slot of its own"
            )
        if self.deduplicate_candidates and self.negatives != "in_batch":
            raise SettingsError(
                f"deduplicate_candidates: needs negatives: in_batch, but negatives is {self.negatives!r}"
            )


LEARNERS = ("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")
CLIP_OPTIONS = ("max_norm", "norm_type", "error_if_nonfinite", "foreach")  # of torch's clip_grad_norm_


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """What our trainer does beyond RecBole's."""

    resume_from: str | None
    precision: str
    accumulate_batches: int
    schedule: str
    warmup_steps: int
    schedule_floor: float
    ema_decay: float | None
    fused_optimizer: bool
    adam_betas: tuple[float, ...]
    decay_embeddings: bool
    compile_encoder: str | None
    clip_grad_norm: dict[str, Any] | None
    learner: str
    enable_amp: bool
    enable_scaler: bool

    def __post_init__(self) -> None:
        self._one_of("precision", ("float32", "bfloat16"))
        self._one_of("schedule", ("constant", "linear", "cosine"))
        if self.learner.lower() not in LEARNERS:  # RecBole would warn and take Adam
            raise SettingsError(
                f"learner: {self.learner!r} is not known{nearest(self.learner, LEARNERS)}; known: "
                f"{', '.join(LEARNERS)}"
            )
        for key in self.clip_grad_norm or {}:
            if key not in CLIP_OPTIONS:
                raise SettingsError(
                    f"clip_grad_norm: {key!r} is not known{nearest(key, CLIP_OPTIONS)}; known: "
                    f"{', '.join(CLIP_OPTIONS)}"
                )
        if self.clip_grad_norm and "max_norm" not in self.clip_grad_norm:
            raise SettingsError(f"clip_grad_norm: needs max_norm, got {self.clip_grad_norm!r}")
        self._require("accumulate_batches", that=self.accumulate_batches >= 1, what="at least 1")
        self._require("warmup_steps", that=self.warmup_steps >= 0, what="at least 0")
        self._require("schedule_floor", that=0 <= self.schedule_floor <= 1, what="in [0, 1]")
        decay = self.ema_decay
        self._require("ema_decay", that=decay is None or 0 <= decay < 1, what="in [0, 1), or ~ for none")
        betas = self.adam_betas
        self._require(
            "adam_betas",
            that=len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
            what="two numbers in [0, 1)",
        )
        for key in ("enable_amp", "enable_scaler"):
            self._require(
                key, that=not getattr(self, key), what="False here; `precision: bfloat16` is what there is"
            )
        if not self.is_adam and (self.fused_optimizer or betas != (0.9, 0.999) or not self.decay_embeddings):
            raise SettingsError(
                "fused_optimizer, adam_betas, decay_embeddings: are for learner: adam or adamw, "
                f"but learner is {self.learner!r}"
            )

    @property
    def is_adam(self) -> bool:
        """Whether the optimiser is one of those that the settings above reach."""
        return self.learner.lower() in ("adam", "adamw")


def check_no_negative_sampling(config: Any) -> None:
    """RecBole's own negative sampling must be off: our candidates are drawn by the loss.

    Raises:
        SettingsError: train_neg_sample_args asks for negatives.
    """
    asked = config["train_neg_sample_args"]
    if asked and asked.get("distribution") not in (None, "none", "None"):
        raise SettingsError(
            f"train_neg_sample_args: must be ~ for {config['model']}, got {asked}; its candidates are set by "
            "`negatives` (in_batch, uniform, mixed, all) and `n_negatives`"
        )


# Keys that make a model read the times of histories or of the request, and their values without times.
TIME_KEYS = {"use_times": "False", "request_gap": "~"}


def time_key(config: Any) -> str | None:
    """The key of TIME_KEYS by which the model of a configuration reads times; None where it reads none."""
    return next((key for key in TIME_KEYS if config[key] not in (False, *NOTHING)), None)
