import gzip
import io
import json
import re
import tarfile
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from PIL import Image

from captionkit.data import load_dataset, load_splits
from captionkit.data.content import content_hashes
from captionkit.data.tars import TarMember, contents, members
from captionkit.data.webdataset import load
from captionkit.errors import DataError, ImageError
from captionkit.recipe import DataConfig


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def pack(path, *files, kind="file", compression="", form=tarfile.PAX_FORMAT) -> str:
    """A tar of (name, content); a content that is a TarInfo's type becomes such an entry."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, f"w:{compression}", format=form) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes) and len(content) == 1 and content in b"1234567":
                info.type, info.linkname = content, "/etc/passwd"
                archive.addfile(info)
                continue
            content = content if isinstance(content, bytes) else content.encode()
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


def samples(first: int, count: int):
    for i in range(first, first + count):
        yield f"{i:05d}.png", png(i)
        yield f"{i:05d}.txt", f"caption {i}\nagain {i}\n"


def shards(root, count=3, each=4):
    for s in range(count):
        pack(root / f"shard-{s:03d}.tar", *samples(s * each, each))
    return f"{root}/shard-{{000..{count - 1:03d}}}.tar"


def read(config):
    dataset = load(config, "train")
    return list(dataset.examples()) if config.streaming else list(dataset)


def reds(dataset) -> list[int]:
    return [np.asarray(example.image)[0, 0, 0].item() for example in dataset]


def test_a_set_in_shards(tmp_path):
    pattern = shards(tmp_path)
    for settings in ({"train_file": pattern}, {"data_dir": str(tmp_path)}):
        dataset = load_dataset(**settings, test_size=0)
        assert len(dataset) == 12
        assert reds(dataset) == list(range(12))
        assert dataset[5].captions == ("caption 5", "again 5")
        assert dataset[5].image_id == "shard-001/00005"
        assert isinstance(dataset[5].source, TarMember)
        assert str(dataset[5].source) == f"00005.png in {tmp_path}/shard-001.tar"
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".png"]
    train, validation = load_splits(DataConfig(train_file=pattern, test_size=0.25), seed=0)
    assert (len(train), len(validation)) == (9, 3)
    assert reds(ForkingPickler.loads(ForkingPickler.dumps(train))) == reds(train)
    assert len(set(content_hashes(train))) == 9


def test_images_are_where_tarfile_says(tmp_path):
    # names too long for the header, in each of the formats
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        long = "d" * 90 + "/" + "f" * 90
        path = tmp_path / f"{form}.tar"
        pack(path, (f"{long}.png", png(1)), (f"{long}.json", '{"text": "\u00e9"}'), form=form)
        with tarfile.open(path) as archive:
            expected = {info.name: archive.extractfile(info).read() for info in archive}
        found = {member.member: member.read_bytes() for member in members(path)}
        assert found == expected == dict(contents(path))
        dataset = load(DataConfig(train_file=str(path)), "train")
        assert dataset[0].source.read_bytes() == png(1)
        assert dataset[0].captions == ("\u00e9",)


@pytest.mark.parametrize(
    ("files", "settings", "expected"),
    [
        ({"txt": "one\n\n two \n"}, {}, ("one", "two")),
        ({"json": '{"caption": "x", "url": "y"}'}, {}, ("x",)),
        ({"json": '{"captions": ["x", " y "]}'}, {}, ("x", "y")),
        ({"json": '{"text": "t", "caption": null}'}, {}, ("t",)),
        ({"json": '{"caption": "x"}', "txt": "from txt"}, {}, ("from txt",)),
        ({"json": '{"alt": "x"}', "txt": "no"}, {"caption_column": "alt"}, ("x",)),
        ({"alt": "x", "txt": "no"}, {"caption_column": "alt"}, ("x",)),
        ({"cls": "a red fox"}, {}, ("a red fox",)),
        ({"caption": "x", "cls": "3"}, {}, ("x",)),
        ({"txt": "\ufeffmarked"}, {}, ("marked",)),
        ({"seg.png": png(9), "txt": "x"}, {"image_column": "png"}, ("x",)),
        ({"TXT": "x"}, {}, ("x",)),
    ],
)
def test_where_captions_are_found(tmp_path, files, settings, expected):
    pack(tmp_path / "a.tar", ("b/1.png", png(4)), *((f"b/1.{e}", c) for e, c in files.items()))
    for streaming in (False, True):
        config = DataConfig(data_dir=str(tmp_path), streaming=streaming, **settings)
        dataset = load(config, "train")
        (example,) = dataset.examples() if streaming else dataset
        assert (example.image_id, example.captions) == ("a/b/1", expected)
        assert example.image.getpixel((0, 0)) == (4, 0, 0)


def test_names_are_normalised_and_litter_is_left(tmp_path):
    pack(
        tmp_path / "a.tar",
        ("./", b"5"), ("./x/../1.png", png(1)), ("./1.txt", "one"), ("._1.png", b"resource"),
        ("__MACOSX/._1.txt", b"fork"), ("a.b/2.png", png(2)), ("a.b/2.txt", "two"),
    )  # fmt: skip
    dataset = load(DataConfig(data_dir=str(tmp_path)), "train")
    assert {e.image_id: e.captions for e in dataset} == {"a/1": ("one",), "a/a.b/2": ("two",)}


def message(path, **settings) -> str:
    with pytest.raises(DataError) as error:
        load(DataConfig(train_file=str(path), **settings), "train")
    assert "\n" not in str(error.value)
    # a stream finds the same fault
    if not path.name.endswith("gz"):
        with pytest.raises(DataError) as streamed:
            list(load(DataConfig(train_file=str(path), streaming=True, **settings), "train")
                 .examples())  # fmt: skip
        assert str(streamed.value) == str(error.value)
    return str(error.value)


IMAGE = ("1.png", png(1))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([IMAGE, ("1.txt", b"2")], r"1.txt is a link, to /etc/passwd.*--dereference"),
        ([("1.png", b"1"), ("1.txt", "x")], "is a link"),
        ([IMAGE, ("1.txt", b"3")], "neither a file nor a folder"),
        ([("../1.png", png(1)), ("../1.txt", "x")], "leads out of the archive"),
        ([("/etc/1.png", png(1)), ("/etc/1.txt", "x")], "leads out of the archive"),
        ([IMAGE, IMAGE, ("1.txt", "x")], "holds 1.png twice"),
        ([IMAGE, ("1.jpg", png(1)), ("1.txt", "x")], "several images, png, jpg. Choose.*image_col"),
        ([IMAGE], r"1 in .*no caption\. Expected a \.txt or \.json.*found \.png"),
        ([IMAGE, ("1.txt", " \n")], r"1\.txt|\.txt is empty"),
        ([IMAGE, ("1.txt", b"caf\xe9")], "is not UTF-8"),
        ([IMAGE, ("1.json", "{")], "not valid JSON"),
        ([IMAGE, ("1.json", "[1]")], "has no object"),
        ([IMAGE, ("1.json", '{"url": "x"}')], r"has the keys url, but no caption.*caption_column"),
        ([IMAGE, ("1.json", '{"text": 3}')], "should be text or a list of text"),
        ([IMAGE, ("1.json", '{"text": []}')], "should be text or a list of text, not empty"),
        ([IMAGE, ("1.json", '{"text": [" "]}')], "not empty"),
        ([IMAGE, ("1.cls", "7")], "the number of a class"),
        ([], "is empty"),
    ],
)
def test_broken_shards(tmp_path, files, expected):
    path = tmp_path / "a.tar"
    pack(path, *files)
    assert re.search(expected, message(path))


def test_files_that_are_no_tars(tmp_path):
    path = tmp_path / "a.tar"
    pack(path, *samples(0, 40))
    whole = path.read_bytes()
    for content in (b"words", whole[: len(whole) // 2], b"\0" * 100):
        path.write_bytes(content)
        assert "cannot be read as a tar" in message(path)
    path.write_bytes(whole)
    assert len(load(DataConfig(train_file=str(path)), "train")) == 40  # no index of the broken ones


def test_compressed_shards_can_only_be_streamed(tmp_path):
    path = tmp_path / "a.tar.gz"
    pack(path, *samples(0, 3), compression="gz")
    assert "is compressed (gzip)" in message(path)
    assert "`gzip -d`" in message(path)
    assert "streaming=True" in message(path)
    stream = load(DataConfig(train_file=str(path), streaming=True), "train")
    assert [(e.image_id, e.captions[0]) for e in stream.examples()] == [
        (f"a/{i:05d}", f"caption {i}") for i in range(3)
    ]
    assert reds(stream.examples()) == [0, 1, 2]
    # one that only pretends not to be
    (tmp_path / "b.tar").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="is compressed"):
        load(DataConfig(train_file=str(tmp_path / "b.tar")), "train")
    path.write_bytes(gzip.compress(b"words" * 1000)[:-30])
    with pytest.raises(DataError, match="cannot be read as a tar"):
        list(load(DataConfig(train_file=str(path), streaming=True), "train").examples())


def test_samples_without_an_image_are_counted_each_time(tmp_path):
    pack(tmp_path / "a.tar", *samples(0, 2), ("9.json", '{"status": "failed"}'))
    for streaming in (False, True, False):
        config = DataConfig(data_dir=str(tmp_path), streaming=streaming)
        with pytest.warns(UserWarning, match=r"1 samples have no image"):
            found = read(config)
        assert len(found) == 2


def test_shards_of_one_name(tmp_path):
    for place in ("x", "y"):
        pack(tmp_path / place / "0.tar", *samples(0, 1))
    with pytest.raises(DataError, match=r"Shards with the same name: 1 \(0\)"):
        load(DataConfig(train_file=f"{tmp_path}/{{x,y}}/0.tar"), "train")


def test_the_index_is_kept_and_made_anew_when_a_shard_changes(tmp_path, monkeypatch):
    from captionkit.data import webdataset

    shards(tmp_path, count=2)
    config = DataConfig(data_dir=str(tmp_path))
    indexed = []
    real = webdataset.members
    monkeypatch.setattr(webdataset, "members", lambda file: indexed.append(file.name) or real(file))
    first = load(config, "train")
    assert indexed == ["shard-000.tar", "shard-001.tar"]
    assert list(load(config, "train")) == list(first)
    assert len(indexed) == 2
    pack(tmp_path / "shard-001.tar", *samples(50, 2))
    assert reds(load(config, "train")) == [0, 1, 2, 3, 50, 51]
    assert indexed[2:] == ["shard-001.tar"]
    # other settings find other captions
    with pytest.raises(DataError, match="no caption"):
        load(DataConfig(data_dir=str(tmp_path), caption_column="alt"), "train")


def test_a_shard_that_shrinks_later(tmp_path):
    path = tmp_path / "a.tar"
    pack(path, *samples(0, 5))
    dataset = load(DataConfig(train_file=str(path)), "train")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ImageError, match=r"00004\.png in .*become shorter"):
        _ = dataset[4].image
    path.unlink()
    with pytest.raises(ImageError, match="No such file"):
        _ = dataset[0].image


def test_a_stream_is_the_set(tmp_path):
    shards(tmp_path)
    config = DataConfig(data_dir=str(tmp_path))
    stream = load(DataConfig(data_dir=str(tmp_path), streaming=True), "train")
    assert list(stream.examples()) == list(load(config, "train"))
    assert json.dumps(repr(stream))
