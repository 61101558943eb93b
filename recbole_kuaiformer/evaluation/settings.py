"""Keys that say how a model is ranked."""

from __future__ import annotations

from dataclasses import dataclass

from recbole_kuaiformer.config import READINGS
from recbole_kuaiformer.settings import Settings, SettingsError


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
