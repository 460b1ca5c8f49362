import hashlib
import io
import json
import subprocess
import zipfile
from collections import namedtuple

import filelock
import pytest
from PIL import Image

from captionkit.cli import main
from captionkit.data import load_dataset
from captionkit.download import coco_files
from captionkit.download.coco import download_coco
from captionkit.download.coco_files import RemoteFile, files_of
from captionkit.errors import ConfigError, DataError, OutputError

VAL, ANNOTATIONS, KARPATHY = "val2017.zip", "annotations_trainval2017.zip", "caption_datasets.zip"


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def photo() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), "red").save(buffer, "JPEG")
    return buffer.getvalue()


CAPTIONS = json.dumps(
    {
        "images": [{"id": 1, "file_name": "000000000001.jpg"}],
        "annotations": [{"image_id": 1, "caption": "red"}],
    }
).encode()
PATHS = {
    "/zips/val2017.zip": zipped(**{"val2017/000000000001.jpg": photo()}),
    "/annotations/annotations_trainval2017.zip": zipped(
        **{f"annotations/captions_{part}2017.json": CAPTIONS for part in ("train", "val")}
    ),
    "/people/karpathy/deepimagesent/caption_datasets.zip": zipped(**{"dataset_coco.json": b"{}"}),
}


@pytest.fixture
def coco(server, monkeypatch):
    """Small files in the place of the published ones, which take 20 GB."""
    server.files |= PATHS
    for path, content in PATHS.items():
        known = hashlib.sha256(content).hexdigest(), len(content)
        sha256, size = (None, None) if "karpathy" in path else known
        file = RemoteFile(server.url(), path, size, sha256)
        monkeypatch.setitem(coco_files._FILES, file.name, file)
    return server


def download(root, *parts, **settings) -> list[str]:
    said: list[str] = []
    download_coco(root, parts=parts, say=said.append, wait=lambda seconds: None, **settings)
    return said


def test_the_published_files_are_what_they_should_be():
    every = [file for year in ("2014", "2017") for file in files_of(coco_files.PARTS, year)]
    assert {file.name for file in every} == set(coco_files._FILES)
    for file in every:
        if file.name != KARPATHY:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert file.size > 700_000
    # the sizes that cocodataset.org gives: 18 GB, 1 GB, 6 GB, 241 MB, 13 GB, 6 GB
    assert round(coco_files._FILES["train2017.zip"].size / 2**30) == 18
    assert round(coco_files._FILES["train2014.zip"].size / 2**30) == 13
    assert round(coco_files._FILES["annotations_trainval2017.zip"].size / 2**20) == 241


def test_files_are_fetched_checked_and_put_in_place(coco, tmp_path):
    root = tmp_path / "new" / "data"
    said = download(root, "val", "annotations", "karpathy")
    assert [line.split(":")[0] for line in said] == [ANNOTATIONS, KARPATHY, VAL]
    assert "SHA-256 as it should be" in said[0]
    assert "no SHA-256 of it is published" in said[1]
    names = {file.name for file in root.iterdir()}
    assert names - {".captionkit-download.lock"} == {
        name
        for zip_name in (VAL, ANNOTATIONS, KARPATHY)
        for name in (zip_name, f"{zip_name}.sha256")
    }
    for path, content in PATHS.items():
        assert (root / path.rpartition("/")[2]).read_bytes() == content
    checked = subprocess.run(
        ["sha256sum", "-c", *(f"{name}.sha256" for name in (VAL, KARPATHY))], cwd=root,
        capture_output=True,
    )  # fmt: skip
    assert checked.returncode == 0

    coco.asked.clear()
    again = download(root, "val", "annotations", "karpathy")
    assert all("there already" in line for line in again)
    assert coco.asked == []


def test_what_was_fetched_is_a_dataset(coco, tmp_path, capsys):
    coco.answers = [coco.broken(200), coco.answers[0]]
    arguments = ["download", "coco", "--data-dir", str(tmp_path), "--parts", "val,annotations"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert f"{ANNOTATIONS}: the connection ended after 200 of" in out
    assert out.endswith(f"\nUse it with: --dataset coco --data-dir {tmp_path}\n")
    assert err == ""
    (example,) = load_dataset(data_dir=str(tmp_path), split="validation")
    assert (example.captions, example.image.size) == (("red",), (4, 3))


def test_a_file_with_another_checksum_is_set_aside(coco, tmp_path):
    content = bytearray(PATHS["/zips/val2017.zip"])
    content[len(content) // 2] ^= 1
    coco.files["/zips/val2017.zip"] = bytes(content)
    with pytest.raises(DataError, match=r"its SHA-256 is .* should be .*val2017\.zip\.damaged"):
        download(tmp_path, "val")
    assert (tmp_path / f"{VAL}.damaged").read_bytes() == content
    assert not (tmp_path / VAL).exists()
    coco.files |= PATHS
    download(tmp_path, "val")
    assert (tmp_path / VAL).read_bytes() == PATHS["/zips/val2017.zip"]


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_zip_is_noticed_without_a_checksum(coco, tmp_path, damage):
    (path,) = (path for path in PATHS if KARPATHY in path)
    content = bytearray(zipped(**{"dataset_coco.json": bytes(range(256)) * 99}))
    if damage == "flipped":
        content[70] ^= 1
    coco.files[path] = bytes(content if damage == "flipped" else content[:-10])
    with pytest.raises(DataError, match=r"what has come is damaged.*caption_datasets\.zip\.damag"):
        download(tmp_path, "karpathy")
    assert not (tmp_path / KARPATHY).exists()


def test_the_servers_file_has_another_size(coco, tmp_path):
    other = zipped(**{"val2017/000000000001.jpg": photo(), "more": b"x"})
    coco.files["/zips/val2017.zip"] = other
    with pytest.raises(DataError, match=r"published one has .* --unchecked fetches it"):
        download(tmp_path, "val")
    download(tmp_path, "val", unchecked=True)
    assert (tmp_path / VAL).read_bytes() == other


def test_checksums_of_ones_own(coco, tmp_path):
    list_ = tmp_path / "SHA256SUMS"
    right = hashlib.sha256(PATHS["/zips/val2017.zip"]).hexdigest()
    list_.write_text(f"{'0' * 64} *zips/{VAL}\n\n")
    with pytest.raises(DataError, match=rf"should be {'0' * 64} \(by .*SHA256SUMS\)"):
        download(tmp_path, "val", sha256=list_)
    list_.write_text(f"{right.upper()}  {VAL}\n")
    assert "SHA256SUMS" in download(tmp_path, "val", sha256=list_)[0]
    assert "there already" in download(tmp_path, "val", sha256=list_)[0]
    (tmp_path / VAL).write_bytes(b"x")
    with pytest.raises(DataError, match=r"val2017\.zip is there, but its SHA-256"):
        download(tmp_path, "val", sha256=list_)
    list_.write_text("abc val2017.zip")
    with pytest.raises(DataError, match=r"SHA256SUMS, line 1: expected 64 hexadecimal"):
        download(tmp_path, "val", sha256=list_)


def test_the_noted_checksum_holds_for_the_next_time(coco, tmp_path):
    download(tmp_path, "karpathy")
    (tmp_path / KARPATHY).unlink()
    (path,) = (path for path in PATHS if KARPATHY in path)
    coco.files[path] = zipped(other=b"whole, but not what it was")
    with pytest.raises(DataError, match=r"by .*caption_datasets\.zip\.sha256"):
        download(tmp_path, "karpathy")


def test_what_is_there_is_left_alone(coco, tmp_path, monkeypatch):
    (tmp_path / VAL).write_bytes(b"short")
    with pytest.raises(
        DataError, match=r"is there with 5 bytes, .* rename it to val2017\.zip\.part"
    ):
        download(tmp_path, "val")
    assert (tmp_path / VAL).read_bytes() == b"short"
    (tmp_path / VAL).unlink()

    monkeypatch.setitem(coco_files._IMAGES, "val2017", 2)
    (tmp_path / "images" / "val2017").mkdir(parents=True)
    (tmp_path / "images" / "val2017" / "1.jpg").touch()
    assert "fetched" in download(tmp_path, "val")[0]  # not all of it is there
    (tmp_path / VAL).unlink()
    (tmp_path / "images" / "val2017" / "2.jpg").touch()
    (tmp_path / "annotations").mkdir()
    for part in ("train", "val"):
        (tmp_path / "annotations" / f"captions_{part}2017.json").touch()
    assert download(tmp_path, "val", "annotations") == [
        f"{ANNOTATIONS}: there already, unpacked", f"{VAL}: there already, unpacked"
    ]  # fmt: skip


def test_there_has_to_be_room_for_all_of_it(coco, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(0, 0, 100_000_000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match=r"has 100\.0 MB free, and .* are needed \(annotations_"):
        download(tmp_path, "val", "annotations")
    assert coco.asked == []
    # what has come already is not counted
    (tmp_path / f"{VAL}.part").write_bytes(PATHS["/zips/val2017.zip"])
    download(tmp_path, "val")


def test_a_second_download_is_refused(coco, tmp_path):
    with (
        filelock.FileLock(tmp_path / ".captionkit-download.lock"),
        pytest.raises(OutputError, match="Another download is writing to"),
    ):
        download(tmp_path, "val")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file cannot be written"):
        download(tmp_path / "file", "val")


def test_a_mirror_without_its_scheme(tmp_path):
    with pytest.raises(ConfigError, match=r"mirror='host/coco' should be an address"):
        download_coco(tmp_path, mirror="host/coco")


def test_a_mirror(coco, tmp_path, server):
    for name in (VAL, KARPATHY):
        file = coco_files._FILES[name]
        coco_files._FILES[name] = RemoteFile(
            "http://nowhere.invalid", *list(vars(file).values())[1:]
        )
    download(tmp_path, "val", "karpathy", mirror=server.url("/"))
    assert [path for path, *_ in coco.asked] == [
        "/people/karpathy/deepimagesent/caption_datasets.zip", "/zips/val2017.zip"
    ]  # fmt: skip


def test_mistakes_on_the_command_line(coco, tmp_path, capsys):
    with pytest.raises(ConfigError, match="--parts vall is not possible: choose from train, val"):
        download(tmp_path, "vall")
    with pytest.raises(ConfigError, match="2014 or 2017"):
        download(tmp_path, "val", year="2015")
    coco.answers = [coco.status(404)]
    assert main(["download", "coco", "--data-dir", str(tmp_path), "--parts", "val"]) == 1
    assert "val2017.zip: the server answered 404" in capsys.readouterr().err
    assert main(["download", "coco", "--data-dir", str(tmp_path), "--parts", "x"]) == 2
