"""A checkpoint → an export; items added to an export."""

from __future__ import annotations

import json
import math
import platform
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from recbole.quick_start import load_data_and_model
from recbole.utils import FeatureSource, FeatureType, ModelType
from safetensors.torch import load_file, save_file
from torch import Tensor

from recbole_kuaiformer import checkpoint, compat
from recbole_kuaiformer.index.base import IndexUnavailableError
from recbole_kuaiformer.index.faiss_index import add_vectors, build_faiss, is_flat, read_faiss, write_faiss
from recbole_kuaiformer.models.dot_product import dot_product_model
from recbole_kuaiformer.models.times import TIME_KEYS, time_key
from recbole_kuaiformer.serving import bundle
from recbole_kuaiformer.serving.catalogue import Catalogue, RequestError
from recbole_kuaiformer.serving.retriever import build_model, vocabularies
from recbole_kuaiformer.serving.schema import exported_config, schema_of

CHECKED_ROWS = 16
_OTHER_DATA = (
    "{file}: the dataset's files are not those it was trained on (items have other numbers); put the old "
    "ones back, or train again"
)
_PACKAGES = ("recbole-kuaiformer", "recbole", "torch", "numpy", "safetensors", "faiss-cpu", "faiss-gpu")


def export(
    file: str | Path,
    out: str | Path,
    *,
    factory: str = "Flat",
    parameters: str = "",
    data_path: str | Path | None = None,
) -> dict[str, Any]:
    """Write the trained model, its items and an index over them; returns the manifest.

    The dataset is read again, for its tokens: the very files that were trained on. Over an export that is
    already there the new version is swapped in, whole. The files load without pickle; the checkpoint of one
    of RecBole's own models is itself a pickle, so export only one you trust.

    Args:
        file: a checkpoint of this package or of RecBole.
        out: a folder.
        factory: FAISS's factory string of the index; anything but ``Flat`` is approximate.
        parameters: its search parameters, as ``efSearch=64``.
        data_path: the folder that holds the dataset's folder, if it is not where it was in training.

    Raises:
        CheckpointError: the file is no checkpoint, or the dataset is not the one it was trained on.
        ExportError: the model cannot be served from histories, or the folder holds something else.
        IndexUnavailableError: an approximate index is asked for and there is no FAISS.
    """
    out = Path(out)
    bundle.check_folder(out)
    config, model, dataset, train = _trained(Path(file), data_path=data_path)
    _check_model(config, model)
    items = _items(model)
    about = {
        "config": exported_config(checkpoint.plain_config(config)["final"]),
        "schema": schema_of(train.dataset),
        "vocabulary": vocabularies(train.dataset),
    }
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    rows = torch.arange(min(CHECKED_ROWS, len(train.dataset)))
    _check_rebuilt(about, state=state, model=model, batch=train.dataset[rows])
    catalogue = Catalogue(_tokens(dataset), items, _columns(dataset))
    files = {
        "model.safetensors": lambda path: save_file(state, path),
        "model.json": lambda path: _write_json(about, path),
        **_catalogue_files(catalogue),
        **_index_file(items, factory=factory, parameters=parameters),
    }
    facts = {
        "model": config["model"],
        "dataset": config["dataset"],
        "n_items": len(items) - 1,
        "n_model_items": len(items) - 1,
        "dimension": items.shape[1],
        "index": {"factory": factory, "parameters": parameters, "exact": is_flat(factory)},
        "versions": _versions(),
    }
    with bundle.locked(out):
        added = _added_items(out)
        bundle.write(out, files=files, facts=facts)
        dropped = None if added is None else sorted(added - {*catalogue.ids})
        return {**bundle.read_manifest(out), "dropped": dropped}


def _trained(file: Path, *, data_path: str | Path | None) -> tuple[Any, Any, Any, Any]:
    """Configuration, model, dataset and training data of a checkpoint."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such checkpoint")

    def check(state: Any) -> Any:
        if not isinstance(state, dict) or "config" not in state or "state_dict" not in state:
            raise checkpoint.CheckpointError(f"{file}: not a checkpoint of RecBole or of this package")
        if data_path is not None:
            state["config"]["data_path"] = str(Path(data_path) / state["config"]["dataset"])
        return state

    compat.after_load.append(check)
    try:
        config, model, dataset, train, _, _ = load_data_and_model(str(file))
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        raise checkpoint.CheckpointError(_OTHER_DATA.format(file=file)) from error
    finally:
        compat.after_load.remove(check)
    _check_dataset(config, train.dataset, file=file)
    model.eval()
    return config, model, dataset, train


def extend(
    folder: str | Path,
    tokens: Sequence[str],
    vectors: Tensor,
    *,
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> str:
    """Add items to an export without retraining; returns the new version's name.

    They can be retrieved, and left out of lists; in a history they are unknown, as the model has no row for
    them. A refresh from a newer checkpoint drops those it does not know: their vectors belong to this one.

    Args:
        folder: an export.
        tokens: of the new items.
        vectors: [M, D] as the model's item vectors are (``Retriever.vectors_from_attributes`` makes them
            from attributes); brought to length 1 where the model's have it.
        columns: values of the export's columns for the new items, by name.

    Raises:
        ExportError: the export is damaged.
        RequestError: a token is there already or twice, or vectors or columns do not fit.
    """
    folder = Path(folder)
    bundle.read_manifest(folder)
    with bundle.locked(folder):
        return _extend(folder, [*map(str, tokens)], vectors, columns={**(columns or {})})


def _extend(folder: Path, tokens: list[str], vectors: Tensor, *, columns: dict[str, Sequence[Any]]) -> str:
    manifest = bundle.read_manifest(folder)
    paths = bundle.checked_files(folder, manifest)
    listed = json.loads(paths["items.json"].read_text(encoding="utf-8"))
    old = Catalogue(listed["tokens"], load_file(paths["items.safetensors"])["items"], listed["columns"])
    _check_tokens(tokens, old=old)
    vectors = _fitting(vectors, old=old, n_new=len(tokens))
    _check_columns(columns, old=old, n_new=len(tokens))
    new = Catalogue(
        [*old.tokens, *tokens],
        torch.cat([old.vectors, vectors]),
        {name: [*values, *columns.get(name, [None] * len(tokens))] for name, values in old.columns.items()},
    )
    files = {name: _copy(paths[name]) for name in ("model.safetensors", "model.json")} | _catalogue_files(new)
    if "index.faiss" in paths:
        index = read_faiss(paths["index.faiss"])
        add_vectors(index, vectors)
        files["index.faiss"] = lambda path: write_faiss(index, path)
    facts = {k: v for k, v in manifest.items() if k not in ("format", "version", "created", "files")}
    facts["n_items"] = len(new.tokens) - 1
    return bundle.write(folder, files=files, facts=facts)


def _check_dataset(config: Any, dataset: Any, *, file: Path) -> None:
    trained_on = config[checkpoint.FINGERPRINT]
    if trained_on is None:
        getLogger().warning(
            f"{file}: tells nothing of the files it was trained on (an earlier version, or RecBole alone, "
            "wrote it); if they have changed since, the export is wrong"
        )
    elif trained_on != checkpoint.fingerprint(dataset):
        raise checkpoint.CheckpointError(_OTHER_DATA.format(file=file))


def _check_model(config: Any, model: Any) -> None:
    if config["MODEL_TYPE"] != ModelType.SEQUENTIAL:
        raise bundle.ExportError(
            f"model: {config['model']} knows users by id, not by history; an export serves sequential models"
        )
    if dot_product_model(model) is None:
        raise bundle.ExportError(f"model: the score of {config['model']} is not known to be a dot product")
    if key := time_key(config):
        raise bundle.ExportError(
            f"{key}: this {config['model']} reads times of history or request; a request gives items alone; "
            f"train with {key}: {TIME_KEYS[key]} to serve it"
        )


def _items(model: Any) -> Tensor:
    vectors = dot_product_model(model)
    assert vectors is not None
    with torch.no_grad():
        items = vectors.item_vectors().detach().float().cpu().contiguous().clone()
    items[0] = 0
    return items


def _check_rebuilt(about: dict[str, Any], *, state: dict[str, Tensor], model: Any, batch: Any) -> None:
    """The model built from the export alone must give the vectors of the one that was trained."""
    rebuilt = build_model(json.loads(json.dumps(about, default=_plain)), state=state)
    ours, theirs = dot_product_model(rebuilt), dot_product_model(model)
    assert ours is not None
    assert theirs is not None
    device = next(model.parameters()).device
    with torch.no_grad():
        want = theirs.user_vectors(batch.to(device)).cpu()
        got = ours.user_vectors(batch.to("cpu"))
    if not torch.allclose(got, want, rtol=1e-4, atol=1e-5):
        raise bundle.ExportError(f"model: {type(model).__name__} built from its export gives other vectors")


def _tokens(dataset: Any) -> list[str]:
    return [str(token) for token in dataset.field2id_token[dataset.iid_field]]


def _columns(dataset: Any) -> dict[str, list[Any]]:
    """Fields of the item file as a person reads them, one value for each item id but padding."""
    feat = dataset.item_feat
    fields = [f for f in feat.columns if f != dataset.iid_field] if feat is not None else []
    fields = [f for f in fields if dataset.field2source[f] == FeatureSource.ITEM]
    return {field: _decoded(dataset, field)[1:] for field in fields}


def _decoded(dataset: Any, field: str) -> list[Any]:
    values = dataset.get_item_feature()[field]
    kind = dataset.field2type[field]
    if kind == FeatureType.TOKEN:
        return ["" if token == "[PAD]" else str(token) for token in dataset.field2id_token[field][values]]
    if kind == FeatureType.TOKEN_SEQ:
        names = dataset.field2id_token[field]
        return [[str(names[i]) for i in row if i] for row in values.tolist()]
    as_they_came = getattr(dataset, "item_floats", {})  # not of a dataset that was saved without
    return [_shown(value) for value in as_they_came.get(field, values.tolist())]


def _shown(value: Any) -> Any:
    """What a person may be shown of a float column: a number, a list, or None for what is missing.

    >>> _shown(2.5), _shown([1.0, float("nan")]), _shown(float("nan")), _shown([])
    (2.5, [1.0, None], None, None)
    """
    if hasattr(value, "__len__"):
        return [_shown(one) for one in value] or None
    return float(value) if math.isfinite(value) else None


def _added_items(folder: Path) -> set[str] | None:
    """Tokens added to the export that lies there, unknown to its checkpoint; None if it cannot be read."""
    if not (folder / bundle.MANIFEST).is_file():
        return set()
    try:
        manifest = bundle.read_manifest(folder)
        path = bundle.checked_files(folder, manifest, only=("items.json",))["items.json"]
    except bundle.ExportError:
        return None
    tokens = json.loads(path.read_text(encoding="utf-8"))["tokens"]
    return {*tokens[manifest["n_model_items"] + 1 :]}


def _catalogue_files(catalogue: Catalogue) -> dict[str, bundle.Writer]:
    listed = {"tokens": catalogue.tokens, "columns": catalogue.columns}
    return {
        "items.json": lambda path: _write_json(listed, path),
        "items.safetensors": lambda path: save_file({"items": catalogue.vectors}, path),
    }


def _index_file(items: Tensor, *, factory: str, parameters: str) -> dict[str, bundle.Writer]:
    """FAISS's own file, for this retriever and for any other program; without FAISS only Flat does."""
    try:
        index = build_faiss(items[1:].numpy(), factory=factory, parameters=parameters)
    except IndexUnavailableError:
        if not is_flat(factory):
            raise
        return {}
    return {"index.faiss": lambda path: write_faiss(index, path)}


def _check_tokens(tokens: list[str], *, old: Catalogue) -> None:
    if not tokens:
        raise RequestError("tokens: none given")
    seen: set[str] = set()
    for token in tokens:
        if token in old.ids or token in seen:
            raise RequestError(f"tokens: {token!r} is in the export already, or given twice")
        if token in ("", old.tokens[0]):
            raise RequestError(f"tokens: {token!r} cannot name an item")
        seen.add(token)


def _fitting(vectors: Tensor, *, old: Catalogue, n_new: int) -> Tensor:
    vectors = torch.as_tensor(vectors, dtype=torch.float32).detach().cpu()
    size = old.vectors.shape[1]
    if vectors.shape != (n_new, size):
        raise RequestError(
            f"vectors: {n_new} tokens need a shape of ({n_new}, {size}), got {tuple(vectors.shape)}"
        )
    if not torch.isfinite(vectors).all():
        raise RequestError("vectors: hold NaN or infinity")
    lengths = old.vectors[1:].norm(dim=1)
    if bool(((lengths - 1).abs() < 1e-4).all()):
        if bool((vectors.norm(dim=1) == 0).any()):
            raise RequestError("vectors: one is zero, but the model's are of length 1")
        return torch.nn.functional.normalize(vectors, dim=1)
    return vectors


def _check_columns(columns: Mapping[str, Sequence[Any]], *, old: Catalogue, n_new: int) -> None:
    for name, values in columns.items():
        if name not in old.columns:
            raise RequestError(f"columns: no column {name!r} in the export; there is {[*old.columns]}")
        if len(values) != n_new:
            raise RequestError(f"columns: {name!r} has {len(values)} values for {n_new} items")
        for value in values:
            parts = value if isinstance(value, list) else [value]
            if not all(part is None or isinstance(part, str | int | float) for part in parts):
                raise RequestError(
                    f"columns: {name!r} takes strings, numbers and lists of them, got {value!r}"
                )


def _copy(source: Path) -> bundle.Writer:
    def copy(path: Path) -> None:
        shutil.copyfile(source, path)

    return copy


def _write_json(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value, default=_plain, ensure_ascii=False), encoding="utf-8")


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _versions() -> dict[str, str]:
    installed = {one.metadata["Name"].lower(): one.version for one in metadata.distributions()}
    packages = {name: installed[name] for name in _PACKAGES if name in installed}
    return {"python": platform.python_version(), **packages}
