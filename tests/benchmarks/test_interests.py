"""What interests do: the numbers against plain loops, on random vectors and on a trained model."""

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from recbole.quick_start import run_recbole

from recbole_kuaiformer.benchmarks import interests
from recbole_kuaiformer.benchmarks.encoded_users import Users, users_of
from recbole_kuaiformer.benchmarks.interest_attention import AttentionByRecency
from recbole_kuaiformer.benchmarks.interest_facts import KINDS, POPULARITY, as_row, facts, kinds_of_targets
from recbole_kuaiformer.benchmarks.interest_plots import LEAST_HISTORY, typical_user
from recbole_kuaiformer.benchmarks.item_categories import categories_of
from recbole_kuaiformer.index.multi_interest import Exclusions
from tests import worlds

N_USERS, N_ITEMS, N_INTERESTS, K = 30, 40, 3, 6


def random_users(*, seed=0, n_interests=N_INTERESTS, masked=True):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(N_USERS).repeat_interleave(5)
    history = Exclusions.of(rows, torch.randint(1, N_ITEMS, rows.shape, generator=generator))
    return Users(
        interests=torch.randn(N_USERS, n_interests, 8, generator=generator),
        targets=torch.randint(1, N_ITEMS, (N_USERS,), generator=generator),
        items=torch.randn(N_ITEMS, 8, generator=generator),
        excluded=history if masked else None,
        history=history,
        dataset=None,
    )


def some_categories(seed=1):
    categories = torch.randint(0, 5, (N_ITEMS,), generator=torch.Generator().manual_seed(seed))
    categories[0] = 0
    return categories


def purity(ids, categories):
    pairs = [*combinations(ids, 2)]
    return sum(categories[a] == categories[b] > 0 for a, b in pairs) / len(pairs)


def in_loops(users, categories):
    """The same facts, one user and one item at a time."""
    categories = categories.tolist()
    wins, found, own_purity, merged_purity = Counter(), Counter(), [], []
    overlaps, kinds, in_head = [], [], []
    hits = {name: [] for name in ("all", *KINDS, *POPULARITY)}
    times_had = Counter(int(i) for i in users.history.item_ids)
    head = sorted(range(1, N_ITEMS), key=lambda item: (-times_had[item], item))[: -(-(N_ITEMS - 1) // 10)]
    for user in range(N_USERS):
        target = int(users.targets[user])
        vectors = [*users.interests[user]]
        had = {int(i) for r, i in zip(users.history.rows, users.history.item_ids) if int(r) == user}
        left_out = had if users.excluded is not None else set()
        wins[max(range(len(vectors)), key=lambda r: float(vectors[r] @ users.items[target]))] += 1
        allowed = [item for item in range(1, N_ITEMS) if item not in left_out]
        score = {i: [float(v @ users.items[i]) for v in vectors] for i in allowed}
        merged = sorted(allowed, key=lambda i: -max(score[i]))[:K]
        found.update(max(range(len(vectors)), key=lambda r: score[i][r]) for i in merged)
        own = [sorted(allowed, key=lambda i: -score[i][r])[:K] for r in range(len(vectors))]
        own_purity.append([purity(one, categories) for one in own])
        merged_purity.append(purity(merged, categories))
        overlaps += [len({*a} & {*b}) / len({*a} | {*b}) for a, b in combinations(own, 2)]
        counts = Counter(categories[item] for item in had if categories[item])
        most = min((c for c in counts if counts[c] == max(counts.values())), default=None)
        of = categories[target]
        kind = None if of == 0 else "main" if of == most else "minor" if of in counts else "new"
        kinds.append({"main": 0, "minor": 1, "new": 2, None: -1}[kind])
        in_head += [item in head for item in merged]
        for name in ("all", kind, "head" if target in head else "tail"):
            if name:
                hits[name].append(target in merged)
    return wins, found, own_purity, merged_purity, overlaps, hits, kinds, in_head


@pytest.mark.parametrize("masked", [True, False])
def test_the_facts_are_those_of_plain_loops(masked):
    users, categories = random_users(masked=masked), some_categories()
    got = facts(users, categories=categories, k=K)
    wins, found, own_purity, merged_purity, overlaps, hits, kinds, in_head = in_loops(users, categories)
    assert got.wins == pytest.approx([wins[r] / N_USERS for r in range(N_INTERESTS)])
    assert got.found == pytest.approx([found[r] / (N_USERS * K) for r in range(N_INTERESTS)])
    assert got.purity_own == pytest.approx([sum(col) / N_USERS for col in zip(*own_purity)])
    assert got.purity_merged == pytest.approx(sum(merged_purity) / N_USERS)
    assert got.overlap == pytest.approx(sum(overlaps) / len(overlaps))
    assert got.head == pytest.approx(sum(in_head) / len(in_head))
    assert 0 < sum(in_head) < len(in_head)
    assert min(len(values) for values in hits.values()) > 1
    assert got.hits == pytest.approx({name: sum(values) / len(values) for name, values in hits.items()})
    assert got.targets == {name: len(values) for name, values in hits.items()}
    kinds_found = kinds_of_targets(users.targets, history=users.history, categories=categories)
    assert kinds_found.tolist() == kinds
    cosine = torch.nn.functional.cosine_similarity
    of_pairs = [
        float(cosine(users.interests[:, i], users.interests[:, j], dim=-1).mean())
        for i, j in combinations(range(N_INTERESTS), 2)
    ]
    assert got.cosine == pytest.approx(sum(of_pairs) / 3, abs=1e-6)


def test_entropy_counts_interests():
    users = random_users()
    alike = facts(users, categories=some_categories(), k=K)
    assert 1 < alike.effective_interests <= N_INTERESTS
    entropy = -sum(share * math.log(share) for share in alike.wins)
    assert math.log(alike.effective_interests) == pytest.approx(entropy)
    for r in (1, 2):
        users.interests[:, r] = (1 + r) * users.interests[:, 0]  # one way for all, and no copies
    collapsed = facts(users, categories=some_categories(), k=K)
    assert (collapsed.overlap, collapsed.cosine) == (1, pytest.approx(1))


def test_copies_of_an_interest_count_nowhere():
    users, categories = random_users(), some_categories()
    want = facts(replace(users, interests=users.interests[:, :2].contiguous()), categories=categories, k=K)
    copied = users.interests.clone()
    copied[:, 2] = copied[:, 0]
    got = facts(replace(users, interests=copied), categories=categories, k=K)
    assert (got.interests, want.interests, facts(users, categories=categories, k=K).interests) == (2, 2, 3)
    assert got.wins == [*want.wins, 0]
    assert got.found == [*want.found, 0]
    assert got.purity_own[:2] == want.purity_own
    assert math.isnan(got.purity_own[2])
    assert as_row(got) == pytest.approx({**as_row(want), "smallest share": 0})


def test_one_interest_has_no_distances():
    row = as_row(facts(random_users(n_interests=1), categories=some_categories(), k=K))
    assert row["cosine of two interests"] is None
    assert row[f"overlap of two lists of {K}"] is None
    assert row["purity of an interest's list"] == row["purity of the merged list"]


def test_the_user_that_is_shown_is_the_median_one_of_those_with_some_history():
    users = random_users()
    assert int(users.history.counts(N_USERS).max()) < LEAST_HISTORY  # nobody has so much: all may be shown
    unit = torch.nn.functional.normalize(users.interests, dim=-1)
    cosine = torch.einsum("ukd,uld->u", unit, unit)
    assert float(cosine[typical_user(users)]) == sorted(cosine.tolist())[N_USERS // 2]
    rows = torch.cat([torch.full((12,), 4), users.history.rows])
    history = Exclusions.of(rows, torch.cat([torch.arange(20, 32), users.history.item_ids]))
    assert typical_user(Users(**{**vars(users), "history": history})) == 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Checkpoints of KuaiFormer and SASRec over 24 items whose kind is their letter."""
    home = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        worlds.at_home(patch, home)
        path = worlds.two_kinds(home / "data", n_users=N_USERS)
        files, results = {}, {}
        for model, more in (("KuaiFormer", {"n_interests": 2}), ("SASRec", {})):
            given = {"data_path": path, "show_progress": False, "load_col": None}
            given |= {"train_neg_sample_args": None}
            if model == "KuaiFormer":
                given = worlds.small_for(model, path, "twofold", **more)
            given |= {"epochs": 2, "topk": [5], "valid_metric": "NDCG@5", "report_both": True}
            given |= {"checkpoint_dir": model, "eval_batch_size": 16, "evaluator": "faiss"}
            results[model] = run_recbole(model, "twofold", config_dict=given)["test_result"]
            (files[model],) = [f for f in (home / model).glob("*.pth") if "-last" not in f.name]
        return files, results


@pytest.fixture(autouse=True)
def _at_home(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)


def test_hits_are_those_of_the_evaluation(trained):
    files, results = trained
    for model, file in files.items():
        users = users_of(file, history="masked")
        got = facts(users, categories=categories_of(users.dataset, "kind"), k=5)
        assert got.hits["all"] == pytest.approx(results[model]["recall@5_masked"], abs=5e-5)
        assert len(got.wins) == (2 if model == "KuaiFormer" else 1)


@torch.no_grad()
def test_attention_by_recency_is_what_the_last_block_gives_to_each_token(trained):
    files, _ = trained
    calls = []

    def watch(model):
        attention.watch(model)
        block = model.encoder.blocks[-1]
        block.register_forward_pre_hook(
            lambda _, args, kwargs: calls.append((block, args, kwargs)), with_kwargs=True
        )

    attention = AttentionByRecency()
    users_of(files["KuaiFormer"], history="kept", watch=watch)
    sums, counts = torch.zeros(2, 64), torch.zeros(64)
    for block, (tokens,), kwargs in calls:
        query, key, _ = block.attention._rotated_heads(
            block.attention_norm(tokens), first=tokens.shape[1] - 2, rotation=kwargs["rotation"]
        )
        for row in range(len(tokens)):
            visible = (kwargs["bias"][row, 0, 0] == 0).nonzero().squeeze(1)
            history = [int(j) for j in visible if j < tokens.shape[1] - 2]
            for r in (0, 1):
                columns = (kwargs["bias"][row, 0, r] == 0).nonzero().squeeze(1)
                scores = torch.stack([query[row, :, r] * key[row, :, j] for j in columns], 1).sum(-1)
                shares = (scores / query.shape[-1] ** 0.5).softmax(1).mean(0)
                for share, j in zip(shares, columns.tolist()):
                    if j in history:
                        sums[r, tokens.shape[1] - 3 - j] += float(share)
            for j in history:
                counts[tokens.shape[1] - 3 - j] += 1
    n = len(attention.counts)
    assert n == max(tokens.shape[1] for _, (tokens,), _ in calls) - 2 > 1
    torch.testing.assert_close(attention.counts, counts[:n].double())
    torch.testing.assert_close(attention.shares.float(), sums[:, :n] / counts[:n], rtol=1e-4, atol=1e-5)
    assert AttentionByRecency().shares is None


def test_the_command_line_writes_table_numbers_and_pictures(trained, tmp_path, capsys):
    files, _ = trained
    named = [f"{model}={file}" for model, file in files.items()]
    given = ["--checkpoints", *named, "--category", "kind", "-k", "5", "--out", str(tmp_path / "out")]
    assert interests.main(given) == 0
    text = (tmp_path / "out" / "interests.md").read_text()
    held = json.loads((tmp_path / "out" / "interests.json").read_text())
    assert "| | KuaiFormer | SASRec |" in text
    for name, digits in (("HR@5, all", 4), ("effective interests", 4)):
        cells = [f"{held[model][name]:.{digits}f}" for model in files]
        assert f"| {name} | {' | '.join(cells)} |" in text
    assert f"| cosine of two interests | {held['KuaiFormer']['cosine of two interests']:.4f} | n/a |" in text
    pytest.importorskip("matplotlib")
    for model in files:
        for picture in ("interests", "map"):
            file = tmp_path / "out" / f"{model}-{picture}.png"
            assert file.read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    for wrong, says in (
        (["--checkpoints", "x", *given[3:]], "'x' is no NAME=FILE"),
        (
            ["--checkpoints", *named, "--category", "colour", "-k", "5", "--out", "o"],
            "has no field 'colour'",
        ),
        ([*given, "-k", "25"], "-k 25: must be between 2 and the 24 items"),
        (["--checkpoints", "a=none.pth", *given[3:]], "none.pth"),
    ):
        assert interests.main(wrong) == 2
        assert says in capsys.readouterr().err
