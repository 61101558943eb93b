"""The measured pieces of benchmarks.retrieval; each runs in a process of its own.

python -m recbole_kuaiformer.benchmarks.retrieval_cases '{"kind": "search", …}' prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from recbole.evaluator import Collector
from torch import Tensor

from recbole_kuaiformer.benchmarks import measuring
from recbole_kuaiformer.evaluation.collector import RankingCollector, UserBatch
from recbole_kuaiformer.index.base import Index
from recbole_kuaiformer.index.choose import build_index
from recbole_kuaiformer.index.multi_interest import best_scores, retrieve
from recbole_kuaiformer.index.torch_exact import TorchIndex

SIZE = 64
TILE_ROWS, TILE_ITEMS = 1024, 8192  # of the bare matrix product
RECALL_USERS = 256
APPROXIMATE = {"hnsw": ("HNSW32", "efSearch=128"), "ivf": ("IVF{n_lists},Flat", "nprobe=32")}


def item_table(n_items: int) -> Tensor:
    """Normalised vectors [N, 64] in √N clusters, as trained item tables are; row 0 is padding."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(max(2, int(n_items**0.5)), SIZE, generator=generator)
    which = torch.randint(len(centres), (n_items + 1,), generator=generator)
    items = centres[which] + 0.7 * torch.randn(n_items + 1, SIZE, generator=generator)
    items = torch.nn.functional.normalize(items, dim=1)
    items[0] = 0
    return items


def interests_near(items: Tensor, *, n_users: int, n_interests: int) -> Tensor:
    """Normalised vectors [B, K, 64] around random items."""
    generator = torch.Generator().manual_seed(2)
    which = torch.randint(1, len(items), (n_users, n_interests), generator=generator)
    near = items[which] + 0.05 * torch.randn(n_users, n_interests, SIZE, generator=generator)
    return torch.nn.functional.normalize(near, dim=-1)


def _config(k: int) -> Any:
    return {
        "metrics": ["Recall"], "eval_args": {"mode": "full"}, "topk": [k], "device": torch.device("cpu"),
        "metric_decimal_place": 4,
    }  # fmt: skip


def recboles_way(items: Tensor, interests: Tensor, *, k: int, batch: int) -> Any:
    """RecBole's evaluation of these users: the full score matrix of each batch, into its own collector."""
    collector = Collector(_config(k))
    for part in interests.split(batch):
        scores = best_scores(part, items)
        scores[:, 0] = -torch.inf
        positive_u = torch.arange(len(part))
        collector.eval_batch_collect(scores, None, positive_u, positive_u % (len(items) - 1) + 1)
    return collector.get_data_struct()


def by_index(index: Index, items: Tensor, interests: Tensor, *, k: int, batch: int) -> Any:
    """The same evaluation by an index, ties and all; of an approximate one without measuring its recall."""
    collector = RankingCollector(_config(k), readings=("kept",), rank_from=None, sampled_users=0)
    collector.begin(index, items)
    for part in interests.split(batch):
        positive_u = torch.arange(len(part))
        users = UserBatch(part, None, {})
        collector.eval_batch_collect(users, None, positive_u, positive_u % (len(items) - 1) + 1)
    return collector.get_data_struct()


def bare_product(items: Tensor, interests: Tensor) -> None:
    """The products that any exhaustive search must compute, and nothing else."""
    queries = interests.flatten(0, 1)
    buffer = torch.empty(TILE_ROWS * TILE_ITEMS)
    for block in queries.split(TILE_ROWS):
        for part in items.split(TILE_ITEMS):
            torch.mm(block, part.T, out=buffer[: len(block) * len(part)].view(len(block), len(part)))


def built(backend: str, items: Tensor) -> tuple[Index | None, float]:
    """The index of a backend's name, and the seconds it took to build."""
    start = time.perf_counter()
    if backend.startswith("recbole"):
        return None, 0.0
    if backend in APPROXIMATE:
        factory, parameters = APPROXIMATE[backend]
        n_lists = max(4, int((len(items) - 1) ** 0.5))
        index, _ = build_index(
            "faiss_cpu", items, factory=factory.format(n_lists=n_lists), parameters=parameters
        )
    else:
        index, _ = build_index(backend, items)
    return index, time.perf_counter() - start


def search(case: dict[str, Any]) -> list[dict[str, Any]]:
    """One backend on one catalogue: every K and k."""
    items = item_table(case["n_items"])
    started: list[Any] = []
    build_mib = measuring.peak_mib(lambda: started.append(built(case["backend"], items)))
    index, build_seconds = started[0]
    return [
        {
            "backend": case["backend"],
            "n_items": case["n_items"],
            "n_interests": n_interests,
            "k": k,
            "build_seconds": build_seconds,
            "build_mib": build_mib,
            **_measured(case, items, index, n_interests=n_interests, k=k),
        }
        for n_interests in case["n_interests"]
        for k in case["k"]
        if k <= case["n_items"]
    ]


def _measured(
    case: dict[str, Any], items: Tensor, index: Index | None, *, n_interests: int, k: int
) -> dict[str, Any]:
    users = interests_near(items, n_users=case["n_users"], n_interests=n_interests)
    if index is None:
        batch = int(case["backend"].split("-")[1])
        needed, free = _recbole_gib(batch, len(items), n_interests), measuring.available_gib()
        if needed > free:
            largest = int(len(items) * free / needed)
            return {
                "stopped": f"needs {needed:.0f} GiB for {batch} users at a time; with {free:.0f} GiB it "
                f"stops at {largest:,} items"
            }

        def work() -> Any:
            return recboles_way(items, users, k=k, batch=batch)

        def answer(some: Tensor) -> Any:
            scores = best_scores(some, items)
            scores[:, 0] = -torch.inf
            return scores.topk(k)

    else:

        def work() -> Any:
            return by_index(index, items, users, k=k, batch=256)

        def answer(some: Tensor) -> Any:
            return retrieve(index, some, k=k)

    memory = measuring.peak_mib(work)
    taken = measuring.seconds(work, repeats=case["repeats"], warm_up=0)
    result: dict[str, Any] = {
        "users_per_second": len(users) / measuring.median(taken),
        "seconds": taken,
        "peak_mib": memory,
        "single_ms": _latency(answer, users, rows=1, repeats=case["single_repeats"]),
        "batch_ms": _latency(answer, users, rows=64, repeats=case["batch_repeats"]),
    }
    if index is not None and not index.is_exact:
        result["recall"] = _recall(index, items, users[:RECALL_USERS], k=k)
    return result


def _recbole_gib(batch: int, n_items: int, n_interests: int) -> float:
    """Scores, working memory of topk, the matrix of positives: 4 bytes each, and 4 more for K > 1."""
    return 4 * (3 + (n_interests > 1)) * batch * n_items / 2**30


def _latency(answer: Callable[[Tensor], Any], users: Tensor, *, rows: int, repeats: int) -> dict[str, float]:
    taken = []
    for turn in range(repeats + 1):
        start = turn * rows % max(1, len(users) - rows)
        some = users[start : start + rows]
        taken += measuring.seconds(lambda some=some: answer(some), repeats=1, warm_up=0)  # type: ignore[misc]
    return {name: 1000 * value for name, value in measuring.percentiles(taken[1:]).items()}


def _recall(index: Index, items: Tensor, users: Tensor, *, k: int) -> float:
    found = retrieve(index, users, k=k).item_ids
    exact = retrieve(TorchIndex(items), users, k=k).item_ids
    hits = sum(len({*a} & {*b} - {0}) for a, b in zip(found.tolist(), exact.tolist()))
    return hits / max(1, int((exact > 0).sum()))


def ratios(case: dict[str, Any]) -> list[dict[str, Any]]:
    """RecBole's way, the exact indexes and the bare product in turn, in one process."""
    items = item_table(case["n_items"])
    rows = []
    for n_interests in case["n_interests"]:
        users = interests_near(items, n_users=case["n_users"], n_interests=n_interests)
        works = {
            f"recbole-{batch}": _recbole_work(items, users, k=case["k"], batch=batch)
            for batch in case["recbole_batches"]
            if _recbole_gib(batch, len(items), n_interests) < measuring.available_gib()
        }
        for backend in ("torch", "faiss_cpu"):
            index, _ = build_index(backend, items)
            works[backend] = _index_work(index, items, users, k=case["k"])
        works["bare_product"] = lambda users=users: bare_product(items, users)  # type: ignore[misc]
        memory = {name: measuring.peak_mib(work) for name, work in works.items()}
        taken = measuring.interleaved(works, rounds=case["rounds"])
        rows.append(
            {
                "n_items": case["n_items"],
                "n_interests": n_interests,
                "n_users": case["n_users"],
                "k": case["k"],
                "seconds": taken,
                "median": {name: measuring.median(values) for name, values in taken.items()},
                "peak_mib": memory,
            }
        )
    return rows


def _recbole_work(items: Tensor, users: Tensor, *, k: int, batch: int) -> Callable[[], Any]:
    return lambda: recboles_way(items, users, k=k, batch=batch)


def _index_work(index: Index, items: Tensor, users: Tensor, *, k: int) -> Callable[[], Any]:
    return lambda: by_index(index, items, users, k=k, batch=256)


def request(case: dict[str, Any]) -> list[dict[str, Any]]:
    """A single request on one core: a history of tokens in, k tokens out, by a KuaiFormer of default size."""
    torch.set_num_threads(1)
    retriever = _untrained_retriever(case)
    generator = torch.Generator().manual_seed(3)
    total, encoder = [], []
    for turn in range(case["repeats"] + 3):
        numbers = torch.randint(1, case["n_items"] + 1, (case["length"],), generator=generator).tolist()
        history = [f"i{number}" for number in numbers]
        read = retriever._reader.read(history, row=0)
        took = measuring.seconds(lambda read=read: retriever._encode([read], {}), repeats=1, warm_up=0)  # type: ignore[misc]
        whole = measuring.seconds(
            lambda history=history: retriever.recommend([history], k=case["k"]),  # type: ignore[misc]
            repeats=1,
            warm_up=0,
        )
        if turn >= 3:
            encoder += took
            total += whole
    in_ms = {
        name: {p: 1000 * value for p, value in measuring.percentiles(values).items()}
        for name, values in (("total_ms", total), ("encoder_ms", encoder))
    }
    facts = {key: case[key] for key in ("n_items", "length", "k", "repeats")}
    return [{**facts, "index": retriever.index.description, **in_ms}]


def _untrained_retriever(case: dict[str, Any]) -> Any:
    from recbole.config import Config

    from recbole_kuaiformer.checkpoint import plain_config
    from recbole_kuaiformer.serving.catalogue import Catalogue
    from recbole_kuaiformer.serving.retriever import Retriever, build_model
    from recbole_kuaiformer.serving.schema import exported_config

    sys.argv = sys.argv[:1]
    config = plain_config(Config("KuaiFormer", "generated", config_dict={"item_frequency": "counts"}))[
        "final"
    ]
    n_items = case["n_items"]
    fields = {
        name: {"type": "token", "source": source, "n_values": n, "length": 1}
        for name, source, n in (("user_id", "user_id", 2), ("item_id", "item_id", n_items + 1))
    }
    schema = {"name": "generated", "uid_field": "user_id", "iid_field": "item_id", "fields": fields}
    about = {"config": exported_config(config), "schema": schema}
    model = build_model(about, state=None)
    items = model.item_vectors().detach()
    catalogue = Catalogue(["[PAD]", *(f"i{number}" for number in range(1, n_items + 1))], items, {})
    return Retriever(model, catalogue=catalogue, index=build_index("auto", items)[0])


def stock(case: dict[str, Any]) -> list[dict[str, Any]]:
    """RecBole's own SASRec on a real dataset: seconds of its own evaluation and of the index's, in turn."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    sys.argv = sys.argv[:1]
    given = {
        "show_progress": False,
        "state": "ERROR",
        "topk": [10, 50, 100, 200],
        "metrics": ["Recall", "NDCG"],
    }
    given |= {"valid_metric": "NDCG@10", "load_col": {"inter": ["user_id", "item_id", "timestamp"]}}
    given |= {"data_path": case["data_path"]} if case["data_path"] else {}
    config = Config("SASRec", case["dataset"], config_dict=given)
    init_seed(1, True)
    train, _, test = data_preparation(config, create_dataset(config))
    model = get_model("SASRec")(config, train.dataset)
    trainers = {}
    for evaluator in ("recbole", "faiss"):
        config["evaluator"] = evaluator
        trainers[evaluator] = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)
    works: dict[str, Callable[[], Any]] = {
        "recbole": lambda: trainers["recbole"].evaluate(test, load_best_model=False),
        "faiss": lambda: trainers["faiss"].evaluate(test, load_best_model=False),
        "encoder": lambda: [_encoded(model, batch[0]) for batch in test],
    }
    results = {name: works[name]() for name in trainers}
    memory = {name: measuring.peak_mib(work) for name, work in works.items()}
    taken = measuring.interleaved(works, rounds=case["rounds"])
    return [
        {
            "dataset": case["dataset"],
            "users": len(test.dataset),
            "items": test.dataset.item_num - 1,
            "same_result": results["recbole"] == results["faiss"],
            "median": {name: measuring.median(values) for name, values in taken.items()},
            "seconds": taken,
            "peak_mib": memory,
        }
    ]


@torch.no_grad()
def _encoded(model: Any, batch: Any) -> Tensor:
    return model.forward(batch[model.ITEM_SEQ], batch[model.ITEM_SEQ_LEN])  # type: ignore[no-any-return]


KINDS = {"search": search, "ratios": ratios, "request": request, "stock": stock}


def main() -> None:
    """Measure the case given as JSON."""
    case = json.loads(sys.argv[1])
    with torch.inference_mode():
        rows = KINDS[case["kind"]](case)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
