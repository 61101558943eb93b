"""yaml → frozen Settings: every key of ours is read, typed and checked here, and nowhere given a default.

Defaults live in ``properties/`` alone. A key that is missing, unknown, of the wrong type or out of range
is an error that names it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints


class SettingsError(ValueError):
    """A key of the configuration is missing, unknown, of the wrong type or out of range."""


S = TypeVar("S", bound="Settings")

# What becomes of the items a user already had: they stay in the ranking, or they leave it.
READINGS = ("kept", "masked")
NOTHING = (None, "~", "null")  # yaml's null, on a command line too; there ~ unquoted is a home folder
# Items that `compression: geometric` keeps as they are where recent_length does not say: the paper's number.
GEOMETRIC_RECENT = 48


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Keys that belong together; a subclass names them as fields, without defaults."""

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Names of the keys this group reads."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def read(cls: type[S], config: Any) -> S:
        """The group's values out of a RecBole Config (or any mapping), typed and checked.

        Raises:
            SettingsError: a key is missing, of the wrong type or out of range.
        """
        hints = get_type_hints(cls)
        values = {}
        for key in cls.keys():  # noqa: SIM118 (a class, not a mapping)
            if key not in config:
                raise SettingsError(f"{key}: missing; properties/ should give it a default")
            values[key] = _cast(config[key], hints[key], key=key)
        return cls(**values)

    def _require(self, key: str, *, that: bool, what: str) -> None:
        if not that:
            raise SettingsError(f"{key}: must be {what}, got {getattr(self, key)!r}")

    def _one_of(self, key: str, names: Iterable[str]) -> None:
        value, known = getattr(self, key), sorted(names)
        if value not in known:
            raise SettingsError(
                f"{key}: {value!r} is not known{nearest(value, known)}; known: {', '.join(known)}"
            )


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
            _check_buckets(options or {}, where=f"attributes: {name}", known=(*BUCKET_KEYS, "missing_value"))


BUCKET_KEYS = ("n_buckets", "maximum", "scale")


def _check_buckets(options: Any, *, where: str, known: tuple[str, ...]) -> None:
    """Options of a continuous value: a mapping of known keys with values that a table can be made of."""
    if not isinstance(options, dict):
        raise SettingsError(f"{where}: must be a mapping of {', '.join(known)}, got {options!r}")
    for key in options:
        if key not in known:
            raise SettingsError(
                f"{where}: {key!r} is not known{nearest(key, known)}; known: {', '.join(known)}"
            )
    if options.get("scale", "uniform") not in ("uniform", "log"):
        raise SettingsError(f"{where}: scale must be uniform or log, got {options['scale']!r}")
    for key in ("n_buckets", "maximum"):
        value = options.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SettingsError(f"{where}: {key} must be a number, got {value!r}")
        if not value > 0:
            raise SettingsError(f"{where}: {key} must be positive, got {options[key]!r}")


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


@dataclass(frozen=True, kw_only=True)
class TransformerSettings(Settings):
    """Shape of a stack of transformer blocks."""

    hidden_size: int
    n_layers: int
    n_heads: int
    inner_size: int | None
    hidden_dropout_prob: float
    attn_dropout_prob: float

    def __post_init__(self) -> None:
        for key in ("hidden_size", "n_layers", "n_heads"):
            self._require(key, that=getattr(self, key) >= 1, what="at least 1")
        self._require(
            "n_heads",
            that=self.hidden_size % (2 * self.n_heads) == 0,
            what=f"a divisor of hidden_size ({self.hidden_size}) that leaves each head an even width",
        )
        self._require(
            "inner_size", that=self.inner_size is None or self.inner_size >= 1, what="at least 1, or ~"
        )
        for key in ("hidden_dropout_prob", "attn_dropout_prob"):
            self._require(key, that=0 <= getattr(self, key) < 1, what="in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class QuerySettings(Settings):
    """How query tokens begin."""

    query_init: str
    query_initializer_range: float | None

    def _check_queries(self) -> None:
        self._one_of("query_init", ("learned", "recent"))
        std = self.query_initializer_range
        self._require("query_initializer_range", that=std is None or std > 0, what="positive, or ~")


@dataclass(frozen=True, kw_only=True)
class KuaiFormerSettings(TransformerSettings, QuerySettings):
    """Shape of the KuaiFormer encoder."""

    n_interests: int
    compression: str
    compression_groups: tuple[int, ...]
    recent_length: int | None
    compression_block: int
    compression_ffn: bool
    compression_end: str
    request_gap: dict[str, Any] | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.request_gap is not None:
            _check_buckets(self.request_gap, where="request_gap", known=BUCKET_KEYS)
            for key in BUCKET_KEYS:
                if key not in self.request_gap:
                    raise SettingsError(f"request_gap: needs {key}")
        self._require("n_interests", that=self.n_interests >= 1, what="at least 1")
        recent = self.recent_length
        self._require("recent_length", that=recent is None or recent >= 1, what="at least 1, or ~")
        self._check_queries()
        self._one_of("compression", ("listed", "geometric"))
        self._one_of("compression_end", ("oldest", "newest"))
        if (self.compression_end, self.query_init) == ("newest", "recent"):
            raise SettingsError(
                "query_init: recent reads the newest items, which compression_end: newest compresses; set "
                "query_init to learned"
            )
        self._require("compression_block", that=self.compression_block >= 1, what="at least 1")
        groups = self.compression_groups
        self._require(
            "compression_groups", that=all(size >= 1 for size in groups), what="sizes of at least 1"
        )

    def recent_items(self, max_length: int) -> int:
        """Items kept as they are: recent_length; or where it is ~ what the listed groups leave of the length.

        Raises:
            SettingsError: the listed layout is shorter than MAX_ITEM_LIST_LENGTH (a longer one is cut to it).
        """
        if self.compression == "geometric":
            return GEOMETRIC_RECENT if self.recent_length is None else self.recent_length
        grouped = sum(self.compression_groups)
        recent = max(max_length - grouped, 1) if self.recent_length is None else self.recent_length
        if grouped + recent < max_length:
            raise SettingsError(
                f"compression_groups: {list(self.compression_groups)} and recent_length {recent} add up to "
                f"{grouped + recent} items, but MAX_ITEM_LIST_LENGTH is {max_length}; add groups, set "
                "recent_length to ~ to keep the rest of the history as it is, or set compression to geometric"
            )
        return recent


@dataclass(frozen=True, kw_only=True)
class SASRecPlusSettings(TransformerSettings):
    """Shape of the single-vector causal encoder."""


@dataclass(frozen=True, kw_only=True)
class PinnerFormerSettings(TransformerSettings):
    """Shape of PinnerFormer's encoder."""


@dataclass(frozen=True, kw_only=True)
class HSTUSettings(QuerySettings):
    """Shape of HSTU's encoder."""

    hidden_size: int
    n_layers: int
    n_heads: int
    qk_size: int
    value_size: int
    hidden_dropout_prob: float
    use_times: bool
    use_request_time: bool
    n_interests: int | None

    def __post_init__(self) -> None:
        for key in ("hidden_size", "n_layers", "n_heads", "qk_size", "value_size"):
            self._require(key, that=getattr(self, key) >= 1, what="at least 1")
        self._require("hidden_dropout_prob", that=0 <= self.hidden_dropout_prob < 1, what="in [0, 1)")
        if self.use_request_time and not self.use_times:
            raise SettingsError("use_request_time: True needs use_times: True; set both, or neither")
        # Positions lie within MAX_ITEM_LIST_LENGTH + 11.
        fits = self.n_interests is None or 1 <= self.n_interests <= 11
        self._require("n_interests", that=fits, what="from 1 to 11, or ~ for the output at the last item")
        self._check_queries()


@dataclass(frozen=True, kw_only=True)
class ComiRecSASettings(Settings):
    """Shape of ComiRec's self-attentive encoder."""

    hidden_size: int
    n_interests: int

    def __post_init__(self) -> None:
        for key in ("hidden_size", "n_interests"):
            self._require(key, that=getattr(self, key) >= 1, what="at least 1")


@dataclass(frozen=True, kw_only=True)
class MINDSettings(ComiRecSASettings):
    """Shape of MIND's encoder."""

    routing_rounds: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("routing_rounds", that=self.routing_rounds >= 1, what="at least 1")


@dataclass(frozen=True, kw_only=True)
class ComiRecDRSettings(MINDSettings):
    """Shape of ComiRec's dynamic-routing encoder."""

    shared_transform: bool


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


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(Settings):
    """How any model is ranked, RecBole's own included."""

    evaluator: str
    index: str
    index_factory: str
    index_parameters: str
    index_spread: str | None
    evaluate_history: str
    report_both: bool
    rank_from: int | None
    strict: bool

    def __post_init__(self) -> None:
        self._one_of("evaluator", ("faiss", "recbole"))
        self._one_of("index", ("auto", "torch", "faiss_cpu", "faiss_gpu"))
        self._one_of("evaluate_history", READINGS)
        self._require("index_factory", that=bool(self.index_factory), what="a FAISS factory string")
        if self.index_spread is not None:
            self._one_of("index_spread", ("shards", "replicas"))
        depth = self.rank_from
        self._require("rank_from", that=depth is None or depth >= 1, what="at least 1, or ~ for never")
        if self.index == "torch" and self.index_factory != "Flat":
            raise SettingsError(
                f"index_factory: {self.index_factory!r} needs FAISS, but index is 'torch', which searches "
                "exhaustively; set index to auto or faiss_cpu"
            )

        if self.index_parameters and self.index_factory == "Flat":
            raise SettingsError(
                f"index_parameters: {self.index_parameters!r} is for approximate indexes, but index_factory "
                "is Flat; name a factory, as IVF1024,Flat or HNSW32"
            )
        if self.index_spread is not None and self.index not in ("auto", "faiss_gpu"):
            raise SettingsError(f"index_spread: {self.index_spread} are over GPUs, but index is {self.index}")

    @property
    def parameters(self) -> str:
        """FAISS's search parameters; on RecBole's command line, which takes one =, written nprobe:16."""
        return self.index_parameters.replace(":", "=")

    @property
    def readings(self) -> tuple[str, ...]:
        """The readings of history to report, the one that counts first."""
        other = tuple(name for name in READINGS if name != self.evaluate_history)
        return (self.evaluate_history, *(other if self.report_both else ()))


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


def check_known_keys(given: Iterable[str], *, ours: Iterable[str], known: Iterable[str]) -> None:
    """Every key the user gave must be one that RecBole or this package reads.

    Args:
        given: keys of the user's files, dict and command line.
        ours: keys of this package, which suggestions are taken from first.
        known: all legal keys.

    Raises:
        SettingsError: names the key, and the nearest known one.
    """
    ours, known = sorted(set(ours)), set(known)
    for key in given:
        if key in known or key in ours:
            continue
        near = nearest(key, ours) or nearest(key, sorted(known))
        raise SettingsError(
            f"{key}: unknown key{near}; name keys of your own in extra_keys (a list) to let them pass"
        )


def nearest(value: Any, known: Iterable[str]) -> str:
    """Words that suggest the known name nearest to the value, whatever its case; none where none is near.

    >>> nearest("sasrec", ["SASRec", "Pop"])
    " (did you mean 'SASRec'?)"
    """
    names = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(str(value).lower(), names, n=1, cutoff=0.7)
    return f" (did you mean {names[matches[0]]!r}?)" if matches else ""


def _cast(value: Any, hint: Any, *, key: str) -> Any:
    """The value in the annotated type; ints pass for floats, lists for tuples, nothing else is bent."""
    if get_origin(hint) in (Union, UnionType):
        if value in NOTHING and NoneType in get_args(hint):
            return None  # RecBole's command line hands on yaml's null as a string
        (hint,) = (arg for arg in get_args(hint) if arg is not NoneType)
    origin = get_origin(hint) or hint
    if origin is tuple and isinstance(value, list | tuple):
        (inner, _) = get_args(hint)
        return tuple(_cast(item, inner, key=key) for item in value)
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is dict and value is None:
        return {}
    is_bool_for_int = origin is int and isinstance(value, bool)
    if not isinstance(value, origin) or is_bool_for_int:
        in_brackets = isinstance(value, str) and value.startswith(("{", "[", "("))
        written = " (as Python writes it on a command line, words in quotes)" if in_brackets else ""
        raise SettingsError(f"{key}: must be {getattr(hint, '__name__', hint)}, got {value!r}{written}")
    if isinstance(value, Mapping):
        return dict(value)
    return value
