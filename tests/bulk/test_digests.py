"""The compact map against a dict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captionkit.bulk import digests
from captionkit.bulk.digests import DigestMap

# few different ones, so that they meet, with the zeros at the end that numpy would drop
DIGESTS = st.builds(lambda start, end: start.ljust(16 - len(end), b"x") + end,
                    st.binary(max_size=2), st.sampled_from([b"", b"\0", b"\0\0"]))  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _small():
    before, digests._RECENT = digests._RECENT, 5
    yield
    digests._RECENT = before


@given(st.lists(st.tuples(DIGESTS, st.integers(-5, 2**40))), st.lists(DIGESTS))
def test_it_is_a_dict(pairs, others):
    compact, plain = DigestMap(), {}
    for known, number in pairs:
        compact.put(known, number)
        plain[known] = number
        assert compact.get(known) == number
    for known in [*plain, *others]:
        assert compact.get(known) == plain.get(known)
        assert (known in compact) == (known in plain)
    assert len(compact) == len(plain)
