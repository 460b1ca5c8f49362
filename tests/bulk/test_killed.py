"""A run that is killed ends, when it goes on, with exactly the captions of an undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from conftest import draw, spoken

HARNESS = Path(__file__).with_name("crash_harness.py")
HERE = Path(__file__).parent


def left_by(*arguments):
    result = subprocess.run(
        [sys.executable, str(HARNESS), *map(str, arguments)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture
def work():
    """A folder in memory where there is one: the order of what is written matters, not the disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder) / "work"


@pytest.fixture
def collection(tmp_path):
    folder = tmp_path / "collection"
    for number in range(60):
        draw(folder / f"{number % 3}" / f"{number:03}.png", number)
    for number in (5, 17, 44):
        (folder / f"{number % 3}" / f"{number:03}.png").write_bytes(b"broken")
    return folder


@pytest.mark.parametrize("kind", ["txt", "metadata", "jsonl", "csv", "parquet"])
def test_killed_at_random_moments(collection, work, kind):
    kills = int(os.environ.get("CAPTIONKIT_KILLS", "4"))  # of each of five formats
    runs = left_by("random", collection, work, kind, kills, len(kind))
    captions = {
        str(path.relative_to(collection)): spoken(path)
        for path in sorted(collection.rglob("*.png"))
        if path.read_bytes() != b"broken"
    }
    for found in runs:
        assert captions_of(found, kind) == captions


def captions_of(found, kind):
    """{image: caption} in what a run left; every image once."""
    if kind == "txt":
        return {
            name.removeprefix("photos/").replace(".txt", ".png"): text.removesuffix("\n")
            for name, text in found.items()
        }
    [(_, content)] = found.items()
    if kind == "parquet":
        rows = content
    elif kind == "csv":
        names, *lines = (line.split(",") for line in content.splitlines())
        rows = [dict(zip(names, line)) for line in lines]
    else:
        rows = [json.loads(line) for line in content.splitlines()]
    image, caption = ("file_name", "text") if kind == "metadata" else ("image", "caption")
    pairs = {row[image].removeprefix("photos/"): row[caption] for row in rows}
    assert len(pairs) == len(rows)
    assert list(pairs) == sorted(pairs)  # as they would stand without an interruption
    return pairs


@pytest.mark.parametrize(
    ("kind", "existing"),
    [
        ("txt", "skip"), ("txt", "append"), ("jsonl", "skip"), ("metadata", "append"),
        ("csv", "append"), ("parquet", "overwrite"),
    ],
)  # fmt: skip
def test_crashed_before_every_change_on_the_disk(tmp_path, work, kind, existing):
    folder = tmp_path / "collection"
    for number in range(5):
        draw(folder / f"{number}.png", number)
    (folder / "3.png").write_bytes(b"broken")
    (folder / "1.txt").write_text("mine")
    if kind == "metadata":
        (folder / "metadata.jsonl").write_text('{"file_name": "1.png", "text": "mine"}\n')
    elif kind in ("jsonl", "csv"):
        start = '{"image": "photos/1.png", "caption": "mine"}'
        rows = {"jsonl": start, "csv": "image,caption\nphotos/1.png,mine"}
        (folder / f"out.{kind}").write_text(rows[kind] + "\n")
    runs = left_by("every", folder, work, kind, existing)
    assert len(runs) > 10
    undisturbed = runs[-1]
    for found in runs:
        assert found == undisturbed
    if kind == "txt":
        own = spoken(folder / "1.png")
        assert undisturbed["photos/1.txt"] == ("mine" if existing == "skip" else f"mine, {own}\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_message_and_it_goes_on(collection, tmp_path, number):
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "from fake_captioner import FakeCaptioner\n"
        "from captionkit import api, cli\n"
        "api.load = lambda *a, **k: FakeCaptioner(0.05)\n"
        "sys.exit(cli.main(['caption', 'collection', '--model', 'git-tiny', '--output', 'x.csv',\n"
        "                   '--batch-size', '2']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    journal = tmp_path / ".captionkit" / "x.csv" / "journal.jsonl"
    for _ in range(600):
        if journal.exists() and journal.read_bytes().count(b"\n") > 5:
            break
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopping after this batch" in said
    assert "The same command goes on" in said or "the same command goes on" in said
    assert "Traceback" not in said
    part = (tmp_path / "x.csv").read_text().count("\n") - 1
    assert 0 < part < 57
    finished = subprocess.run(
        [sys.executable, "-c", code.replace("0.05", "0")], cwd=tmp_path, capture_output=True
    )
    assert finished.returncode == 0
    assert f"done       {part}".encode() in finished.stdout
    assert (tmp_path / "x.csv").read_text().count("\n") - 1 == 57
