from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from captionkit.metrics.edit_distance import edit_distance

items = st.lists(st.sampled_from("abcde"), max_size=90)


@given(items, items)
def test_equals_rapidfuzz(reference, prediction):
    assert edit_distance(reference, prediction) == Levenshtein.distance(reference, prediction)
