import io
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captionkit.data.coco import json_stream
from captionkit.data.coco.json_stream import array_batches

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(
    st.sampled_from(["images", "annotations", "info", "é"]), st.lists(VALUES, max_size=6)
)


def read(text: str | bytes, chunk: int = 2**20, wanted=("images", "annotations")) -> dict:
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    found: dict[str, list] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        for name, items in array_batches(io.BytesIO(content), wanted):
            found.setdefault(name, []).extend(items)
    return found


@given(
    content=OBJECTS,
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_it_reads_what_json_reads_wherever_a_part_ends(content, chunk, indent, ascii_only):
    text = json.dumps(content, indent=indent, ensure_ascii=ascii_only)
    expected = {name: content[name] for name in content if name in ("images", "annotations")}
    try:
        content = text.encode()
    except UnicodeEncodeError:
        return
    assert read(content, chunk) == json.loads(json.dumps(expected))


@given(
    content=OBJECTS.filter(bool),
    chunk=st.integers(1, 40),
    place=st.floats(0, 1),
    put=st.sampled_from(["", ",", "]", "}", "[", "{", '"', "1", ":", " x"]),
)
@settings(deadline=None, max_examples=60)
def test_damage_is_an_error_where_json_says_so(content, chunk, place, put):
    text = json.dumps(content)
    at = round(place * (len(text) - 1))
    damaged = text[:at] + put + text[at + 1 :]
    try:
        expected = json.loads(damaged)
    except ValueError:
        with pytest.raises(ValueError, match="at character"):
            read(damaged, chunk)
        return
    # other names, or values that are no lists any more
    if all(isinstance(expected.get(name, []), list) for name in ("images", "annotations")):
        found = read(damaged, chunk)
        assert all(found[name] == expected[name] for name in found)


def test_a_file_that_is_cut_off_anywhere_is_an_error():
    text = json.dumps({"info": {"a": [1]}, "images": [{"id": 12, "x": "é\n"}, 3, [4]], "b": 1.5})
    for end in range(len(text)):
        with pytest.raises(ValueError, match=r"where the file ends|before"):
            read(text[:end], 7)
    assert read(text, 7) == {"images": [{"id": 12, "x": "é\n"}, 3, [4]]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected {, at character 0, where the file ends"),
        ("[]", r"expected {, at character 0, before '\[\]'"),
        ('{"images": 3}', '"images" should be a list, at character 11'),
        ('{"images": []} x', "more after the end of the object, at character 15"),
        ('{"images": [1 2]}', r"expected , or \] after a value, at character 12, before '1 2"),
        ('{"images": [1,]}', "at character 14"),
        ('{"a": ' + "[" * 200_000, "nested too deeply|Expecting value"),
        ('{"images": [' + "[" * 200_000, "nested too deeply|Expecting value"),
    ],
)
def test_messages_say_where(text, message):
    with pytest.raises(ValueError, match=message):
        read(text)


def test_bytes_that_are_not_utf_8_are_a_value_error():
    with pytest.raises(ValueError, match="utf-8"):
        read(b'{"images": ["\xff"]}')
    assert read(b'\xef\xbb\xbf{"images": [1]}') == {"images": [1]}


def test_items_come_in_parts():
    text = json.dumps({"images": [], "annotations": list(range(1000))})
    batches = list(array_batches(io.BytesIO(text.encode()), ("images", "annotations")))
    assert batches == [("images", []), ("annotations", list(range(1000)))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", 100)
        parts = [items for _, items in array_batches(io.BytesIO(text.encode()), ("annotations",))]
    assert max(map(len, parts)) < 40
    assert list(itertools.chain(*parts)) == list(range(1000))
