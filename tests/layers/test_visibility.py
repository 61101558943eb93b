"""The mask of several targets, entry by entry."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_kuaiformer.layers.visibility import causal_visibility, group_visibility, query_visibility


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_query_visibility_entry_by_entry(data):
    n_rows, n_tokens, n_targets, n_queries = (data.draw(st.integers(1, high)) for high in (3, 6, 4, 3))
    valid = torch.tensor(
        data.draw(
            st.lists(
                st.lists(st.booleans(), min_size=n_tokens, max_size=n_tokens),
                min_size=n_rows,
                max_size=n_rows,
            )
        )
    )
    n_seen = torch.tensor(
        data.draw(
            st.lists(
                st.lists(st.integers(0, n_tokens), min_size=n_targets, max_size=n_targets),
                min_size=n_rows,
                max_size=n_rows,
            )
        )
    )
    visible = query_visibility(valid, n_seen=n_seen, n_queries=n_queries)
    size = n_tokens + n_targets * n_queries
    assert visible.shape == (n_rows, size, size)
    for b in range(n_rows):
        for i in range(size):
            for j in range(size):
                if j < n_tokens:
                    limit = i + 1 if i < n_tokens else int(n_seen[b, (i - n_tokens) // n_queries])
                    want = (bool(valid[b, j]) and j < limit) or i == j
                else:
                    same = i >= n_tokens and (i - n_tokens) // n_queries == (j - n_tokens) // n_queries
                    want = same and j <= i
                assert bool(visible[b, i, j]) == want, (b, i, j)


def test_nobody_sees_nothing():
    valid = torch.zeros(2, 3, dtype=torch.bool)
    for visible in (causal_visibility(valid), group_visibility(valid)):
        assert torch.equal(visible, torch.eye(3, dtype=torch.bool).expand(2, 3, 3))


def test_a_group_sees_both_ways():
    visible = group_visibility(torch.tensor([[False, True, True]]))
    assert visible[0].int().tolist() == [[1, 1, 1], [0, 1, 1], [0, 1, 1]]
