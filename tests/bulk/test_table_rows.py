"""Files of captions, read by the libraries that others use."""

from __future__ import annotations

import csv
import io

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captionkit.bulk.table_rows import column_names, read_table, write_table
from captionkit.bulk.wording import one_line
from captionkit.errors import DataError

FORMULAS = ["=1+1", "+1", "-x", "@SUM(A1)", "'=1", "''-", "'quoted'", "<b>a</b>", 'a "dog", a cat']


def written(tmp_path, kind, rows, names=("image", "caption", "score"), base=None):
    path = tmp_path / f"rows.{kind}"
    with open(path, "wb") as file:
        write_table(file, kind, rows, names, base)
    return path


def rows_of(captions):
    return [{"image": f"{i}.png", "caption": c, "score": -i / 3} for i, c in enumerate(captions)]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_what_is_written_comes_back(tmp_path, kind):
    rows = rows_of([*FORMULAS, "Kätzchen 😀", "", "a\u2028b"])
    rows[0]["alternatives"] = [{"caption": "b", "score": -1.0}]
    names = ("image", "caption", "score", "alternatives")
    path = written(tmp_path, kind, rows, names)
    full = [{"alternatives": None, **row} for row in rows] if kind == "parquet" else rows
    assert list(read_table(path, kind)) == full
    assert column_names(path, kind) == list(names)


@given(st.lists(st.text(st.characters(codec="utf-8")).map(one_line)))
def test_no_csv_cell_is_a_formula_and_all_come_back(captions):
    buffer = io.BytesIO()
    write_table(buffer, "csv", rows_of(captions), ("image", "caption", "score"), None)
    cells = list(csv.DictReader(io.StringIO(buffer.getvalue().decode(), newline="")))
    assert not any(cell["caption"][:1] in tuple("=+-@\t\r") for cell in cells if cell["caption"])
    assert len(cells) == len(captions)
    for cell, caption in zip(cells, captions):
        assert cell["caption"] in (caption, f"'{caption}")


def test_csv_comes_back_through_our_own_reader(tmp_path):
    path = written(tmp_path, "csv", rows_of(FORMULAS))
    assert [row["caption"] for row in read_table(path, "csv")] == FORMULAS


def test_parquet_keeps_the_schema_of_the_file_before(tmp_path):
    import pyarrow as pa

    base = tmp_path / "base.parquet"
    table = pa.table(
        {"file_name": pa.array(["a"], pa.large_string()), "n": pa.array([1], pa.int8())}
    )
    pq.write_table(table, base)
    row = {"file_name": "a", "n": 1, "caption": "x", "score": -1.0}
    path = written(tmp_path, "parquet", [row], list(row), base)
    schema = pq.read_schema(path)
    assert [str(field.type) for field in schema] == ["large_string", "int8", "string", "double"]
    assert pq.read_table(path).to_pylist() == [row]


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        ("jsonl", b'{"image": 1}\n[1]\n', "line 2: expected an object"),
        ("jsonl", b"\xff\n", "line 1"),
        ("csv", b"image,caption\na.png\n", "line 2: 1 fields, and the header has 2"),
        ("csv", b'image\n"a', "unexpected end of data"),
        ("csv", "image\nä".encode("latin-1"), "utf-8"),
        ("parquet", b"none", "Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_not_touched(tmp_path, kind, content, words):
    path = tmp_path / f"x.{kind}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as error:
        list(read_table(path, kind))
    assert "Nothing in it was changed" in str(error.value)
