"""KuaiFormer as a RecBole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_kuaiformer.bucket_options import BUCKET_KEYS, check_buckets
from recbole_kuaiformer.config import WindowSettings
from recbole_kuaiformer.encoders.item_compression import fit_layout, geometric_groups
from recbole_kuaiformer.encoders.kuaiformer import KuaiFormerEncoder
from recbole_kuaiformer.models.attributes import continuous
from recbole_kuaiformer.models.base import RetrievalModel
from recbole_kuaiformer.models.shapes import QuerySettings, TransformerSettings
from recbole_kuaiformer.models.times import times_of
from recbole_kuaiformer.settings import SettingsError

# Items that `compression: geometric` keeps as they are where recent_length does not say: the paper's number.
GEOMETRIC_RECENT = 48


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
            check_buckets(self.request_gap, where="request_gap", known=BUCKET_KEYS)
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


class KuaiFormer(RetrievalModel):
    """KuaiFormer: Transformer-Based Retrieval at Kuaishou (Liu et al., arXiv 2411.10057v1).

    Llama blocks over an adaptively compressed history, K query tokens that read out K interests, and an
    in-batch softmax corrected by log q and smoothed. Keys: ``properties/model/KuaiFormer.yaml``.

    Raises:
        SettingsError: a key is missing, of the wrong type or out of range.
    """

    settings = KuaiFormerSettings
    encoder: KuaiFormerEncoder

    @classmethod
    def check(cls, config: Any) -> None:
        """As for every model; and the compression layout must hold the history and a window's targets."""
        super().check(config)
        windows, settings = WindowSettings.read(config), KuaiFormerSettings.read(config)
        default = tuple(config.internal_config_dict["compression_groups"])
        if settings.compression == "geometric" and settings.compression_groups != default:
            raise SettingsError(
                f"compression_groups: {list(settings.compression_groups)} is not read with compression: "
                "geometric, which sets the sizes itself; leave one of the two out"
            )
        recent = settings.recent_items(windows.MAX_ITEM_LIST_LENGTH)
        if windows.span > recent:
            raise SettingsError(
                f"window_targets: {windows.span} targets of a window lie among its recent items, but "
                f"recent_length is {recent}; lower window_targets or raise recent_length"
            )

        if settings.compression_end == "newest" and windows.span > 1:
            raise SettingsError(
                f"window_targets: {windows.span} targets share newest items, which compression_end: newest "
                "compresses; set window_targets to 1"
            )

    def build_encoder(self, config: Any) -> KuaiFormerEncoder:
        """The encoder; the log tells the compression layout where it is not the one listed."""
        settings = KuaiFormerSettings.read(config)
        groups, recent_length = self._layout(settings)
        return KuaiFormerEncoder(
            settings.hidden_size,
            n_layers=settings.n_layers,
            n_heads=settings.n_heads,
            inner_size=settings.inner_size,
            n_interests=settings.n_interests,
            query_init=settings.query_init,  # type: ignore[arg-type]
            query_std=settings.query_initializer_range,
            compression_groups=groups,
            recent_length=recent_length,
            compression_block=settings.compression_block,
            compression_ffn=settings.compression_ffn,
            compression_end=settings.compression_end,  # type: ignore[arg-type]
            hidden_dropout_prob=settings.hidden_dropout_prob,
            attn_dropout_prob=settings.attn_dropout_prob,
            request_gap=None
            if settings.request_gap is None
            else continuous("request_gap", source="interaction", options=settings.request_gap),
        )

    def encoder_inputs(self, interaction: Interaction, *, columns: Tensor) -> dict[str, Tensor]:
        """The times of items and request, where the queries read them.

        Raises:
            ValueError: the interaction has no times.
        """
        if self.encoder.gaps is None:
            return {}
        return times_of(interaction, columns=columns, key="request_gap")

    def _layout(self, settings: KuaiFormerSettings) -> tuple[tuple[int, ...], int]:
        """Group sizes, oldest first, and the recent items: together at most MAX_ITEM_LIST_LENGTH."""
        length, recent = self.max_seq_length, settings.recent_items(self.max_seq_length)
        if settings.compression == "geometric":
            groups, recent = geometric_groups(length - recent), min(recent, length)
            self.logger.info(
                f"compression: geometric, {length} items as {len(groups)} group tokens {[*groups]} + {recent}"
            )
            return groups, recent
        groups, kept = fit_layout(settings.compression_groups, recent_length=recent, max_length=length)
        if (groups, kept) != (settings.compression_groups, recent):
            self.logger.info(
                f"compression layout {[*settings.compression_groups]} + {recent} cut to MAX_ITEM_LIST_LENGTH "
                f"{length}: {[*groups]} + {kept}"
            )
        return groups, kept
