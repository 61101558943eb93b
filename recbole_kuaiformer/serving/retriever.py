"""From raw item tokens to recommendations, out of an export."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from recbole.utils import FeatureType, get_model
from safetensors.torch import load_file
from torch import Tensor

from recbole_kuaiformer import defaults
from recbole_kuaiformer.index.base import NONE, Index, IndexUnavailableError
from recbole_kuaiformer.index.choose import AUTO, INDEXES, build_index
from recbole_kuaiformer.index.diversity import choose_diverse
from recbole_kuaiformer.index.faiss_index import LoadedFaissIndex, is_flat, read_faiss
from recbole_kuaiformer.index.multi_interest import Exclusions, Retrieved, retrieve
from recbole_kuaiformer.models.base import RetrievalModel
from recbole_kuaiformer.models.dot_product import DotProductModel, dot_product_model
from recbole_kuaiformer.serving import bundle
from recbole_kuaiformer.serving.catalogue import Catalogue, RequestError
from recbole_kuaiformer.serving.encoding import AttributeLists, History, HistoryReader, checked_histories
from recbole_kuaiformer.serving.schema import ExportedDataset, ServingConfig

HISTORIES_AT_ONCE = 256
LOADS = 3  # attempts to read a version before a newer one takes its place
POOL_FACTOR = 4  # items a diverse choice is made from, as a multiple of k


@dataclass(frozen=True)
class Recommendations:
    """What was found for each history, best first.

    Attributes:
        tokens: item tokens as in the data the model was trained on.
        scores: max_r(u_r · x), Eq. 9 of KuaiFormer.
        interests: which interest r, counted from 0, found the item.
        unknown: tokens of the history that the model cannot read, in order; they were left out of it. A
            history of which nothing was left gets no recommendations.
    """

    tokens: list[list[str]]
    scores: list[list[float]]
    interests: list[list[int]]
    unknown: list[list[str]]


class Retriever:
    """Recommends from raw item tokens; made by ``Retriever.load``, and never changed afterwards.

    Args:
        model: built and loaded, on its device. catalogue: tokens and vectors of all items.
        index: over the catalogue's vectors. vocabulary: id by token of the attributes of interactions.
        version: of the export, or empty.
    """

    def __init__(
        self,
        model: Any,
        *,
        catalogue: Catalogue,
        index: Index,
        vocabulary: Mapping[str, Mapping[str, int]] | None = None,
        version: str = "",
    ) -> None:
        vectors = dot_product_model(model)
        if vectors is None:
            raise RequestError(f"{type(model).__name__}: its score is not known to be a dot product")
        self.model, self.catalogue, self.index, self.version = model.eval(), catalogue, index, version
        self._vectors: DotProductModel = vectors
        self._reader = HistoryReader(self.model, catalogue=catalogue, vocabulary=vocabulary or {})

    @classmethod
    def load(cls, folder: str | Path, *, index: str = AUTO, device: str = "cpu") -> Retriever:
        """A retriever over the export's current version.

        Args:
            folder: written by ``python -m recbole_kuaiformer.export``.
            index: backend, as in the configuration; an approximate index is read from the export.
            device: where the encoder (and the torch or GPU backend) runs.

        Raises:
            ExportError: the export is incomplete or altered; names the file.
            StaleExportError: newer versions took its place faster than it could be read.
            IndexUnavailableError: the backend cannot run here.
        """
        folder = Path(folder)
        for _ in range(LOADS):
            loaded = cls._load_unless_replaced(folder, index=index, device=device)
            if loaded is not None:
                return loaded
        raise bundle.StaleExportError(f"{folder}: replaced {LOADS} times while it was read; load again")

    @classmethod
    def _load_unless_replaced(cls, folder: Path, *, index: str, device: str) -> Retriever | None:
        """None where a newer version took the place of the one being read."""
        manifest = bundle.read_manifest(folder)
        try:
            return cls._load(folder, manifest, index=index, device=device)
        except Exception:
            if bundle.read_manifest(folder)["version"] == manifest["version"]:
                raise
            return None

    @classmethod
    def _load(cls, folder: Path, manifest: Mapping[str, Any], *, index: str, device: str) -> Retriever:
        files = bundle.checked_files(folder, manifest)
        about = json.loads(files["model.json"].read_text(encoding="utf-8"))
        model = build_model(about, state=load_file(files["model.safetensors"]), device=device)
        listed = json.loads(files["items.json"].read_text(encoding="utf-8"))
        vectors = load_file(files["items.safetensors"], device=device)["items"]
        catalogue = Catalogue(listed["tokens"], vectors, listed["columns"])
        return cls(
            model,
            catalogue=catalogue,
            index=_index(index, manifest=manifest, file=files.get("index.faiss"), vectors=vectors),
            vocabulary=about["vocabulary"],
            version=manifest["version"],
        )

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        *,
        k: int = 10,
        exclude_history: bool = True,
        diversity: float = 0.0,
        category: str | None = None,
        attributes: AttributeLists | None = None,
    ) -> Recommendations:
        """The best k items for each history, of users seen in training or not.

        Args:
            histories: item tokens of each user, oldest first; the newest that the model can read count.
            k: how many items; a user gets fewer where the catalogue has, or an approximate index finds, no
                more.
            exclude_history: whether items of the whole history given stay out of the list.
            diversity: λ ≥ 0 of the controllable aggregation of ComiRec, in units of the score.
            category: column of the export that λ diversifies.
            attributes: values of the model's interaction attributes beside each history, by name; what is
                not given counts as missing.

        Raises:
            RequestError: names the argument at fault.
        """
        k = min(self._checked_k(k), self.index.n_items)
        self._check_choice(diversity=diversity, category=category)
        histories = checked_histories(histories)
        attributes = attributes or {}
        self._reader.check(attributes, n_histories=len(histories))
        read = [self._reader.read(tokens, row=row) for row, tokens in enumerate(histories)]
        there = [one for one in read if one.ids]
        found = None
        if there:
            interests = self._encode(there, attributes)
            excluded = self._had([histories[one.row] for one in there]) if exclude_history else None
            depth = min(POOL_FACTOR * k, self.index.n_items) if diversity else k
            found = retrieve(self.index, interests, k=depth, excluded=excluded)
            if diversity and category is not None:
                kinds = self.catalogue.categories(category)
                found = choose_diverse(found, k=k, categories=kinds, weight=diversity)
        return self._answer(read, [one.row for one in there], found)

    def vectors_from_attributes(self, values: Mapping[str, Sequence[Any]]) -> Tensor:
        """Item vectors [M, D] of items the model never saw, from their attributes alone.

        Args:
            values: for each attribute of items that the model reads, one raw value for each new item:
                a token, a list of tokens, or a number.

        Raises:
            RequestError: the model's target side reads no attributes (``target_attributes``), or one of
                them is not given.
        """
        model = self.model
        if not isinstance(model, RetrievalModel) or model.tokens.target_mlp is None:
            raise RequestError(
                f"{type(model).__name__}: its item vectors are made from ids alone; train with "
                "target_attributes: True and attributes of the items, or give vectors of your own"
            )
        n_new = self._reader.check_items(values, names=model.tokens.of_item)
        tensors = {
            name: self._reader.values(name, [values[name]], width=n_new)[0] for name in model.tokens.of_item
        }
        with torch.inference_mode():
            return model.item_vectors_of_attributes(tensors)

    # ---- requests ------------------------------------------------------------------------------------

    @staticmethod
    def _checked_k(k: Any) -> int:
        try:
            number = operator.index(k)
        except TypeError as error:
            raise RequestError(f"k: must be an integer, got {k!r}") from error
        if number < 1:
            raise RequestError(f"k: must be at least 1, got {number}")
        return number

    def _check_choice(self, *, diversity: float, category: str | None) -> None:
        if not isinstance(diversity, int | float) or not 0 <= diversity < float("inf"):
            raise RequestError(f"diversity: must be a finite number of at least 0, got {diversity!r}")
        if category is not None:
            self.catalogue.check_column(category)
        elif diversity:
            raise RequestError(
                f"category: diversity needs a column of the items, one of {[*self.catalogue.columns]}"
            )

    def _had(self, histories: Sequence[Sequence[str]]) -> Exclusions:
        ids = self.catalogue.ids
        pairs = [(row, ids[str(t)]) for row, tokens in enumerate(histories) for t in tokens if str(t) in ids]
        rows, item_ids = torch.tensor(pairs, device=self.catalogue.vectors.device).T
        return Exclusions.of(rows, item_ids)

    @torch.inference_mode()
    def _encode(self, histories: list[History], attributes: AttributeLists) -> Tensor:
        blocks = [
            histories[start : start + HISTORIES_AT_ONCE]
            for start in range(0, len(histories), HISTORIES_AT_ONCE)
        ]
        parts = [self._vectors.user_vectors(self._reader.batch(block, attributes)) for block in blocks]
        return torch.cat(parts)

    def _answer(self, read: list[History], rows: list[int], found: Retrieved | None) -> Recommendations:
        result = Recommendations([], [], [], [one.unknown for one in read])
        for part in (result.tokens, result.scores, result.interests):
            part.extend([] for _ in read)
        for place, row in enumerate(rows):
            if found is None:
                break
            is_item = found.item_ids[place] != NONE
            numbers = found.item_ids[place][is_item].tolist()
            result.tokens[row].extend(self.catalogue.tokens[number] for number in numbers)
            result.scores[row].extend(found.scores[place][is_item].tolist())
            result.interests[row].extend(found.interests[place][is_item].tolist())
        return result


def build_model(about: Mapping[str, Any], *, state: dict[str, Tensor] | None, device: str = "cpu") -> Any:
    """The exported model, built without its dataset and loaded with its weights (None leaves it untrained).

    Raises:
        ExportError: the weights do not fit the model.
    """
    given = defaults.completed(about["config"])
    config = ServingConfig(given, device=torch.device(device), mask_known_positives=False, mask_history=False)
    dataset = ExportedDataset(about["schema"], state=state or {})
    model = get_model(config["model"])(config, dataset)
    try:
        if state is not None:
            model.load_state_dict(state)
    except RuntimeError as error:
        raise bundle.ExportError(f"model.safetensors: does not fit {config['model']} ({error})") from error
    return model.to(device).eval()


def vocabularies(dataset: Any) -> dict[str, dict[str, int]]:
    """Id by token of every token field but users and items."""
    kinds = (FeatureType.TOKEN, FeatureType.TOKEN_SEQ)
    ids = (dataset.uid_field, dataset.iid_field)
    return {
        name: {str(token): number for number, token in enumerate(dataset.field2id_token[name]) if number}
        for name, kind in dataset.field2type.items()
        if kind in kinds and name not in ids and name in dataset.field2id_token
    }


def _index(name: str, *, manifest: Mapping[str, Any], file: Path | None, vectors: Tensor) -> Index:
    """The backend asked for over the vectors; an approximate index is read as it was written."""
    if name not in (AUTO, *INDEXES):
        raise ValueError(f"index: {name!r} is not known; known: {AUTO}, {', '.join(INDEXES)}")
    factory, parameters = manifest["index"]["factory"], manifest["index"]["parameters"]
    if is_flat(factory) or name == "torch" or file is None:
        return build_index(name, vectors)[0]
    if name == "faiss_gpu":
        return build_index(name, vectors, factory=factory, parameters=parameters)[0]
    try:
        index = read_faiss(file, parameters=parameters)
    except IndexUnavailableError:
        if name != AUTO:
            raise
        return build_index("torch", vectors)[0]
    return LoadedFaissIndex(index, description=f"faiss_cpu {factory} {parameters}".rstrip())
