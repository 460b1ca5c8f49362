"""Inputs that fuzzing found, each of which once brought out another error than ours, or none."""

from __future__ import annotations

import io
import json
import struct
import tarfile

import numpy as np
import pytest
from fuzz.test_fuzz_archives import FILES, zipped
from PIL import Image
from safetensors.numpy import save

from captionkit.bulk.config import BulkConfig
from captionkit.bulk.journal import Journal
from captionkit.bulk.place import Place
from captionkit.bulk.table_file import TableFile
from captionkit.caption_tables import read_predictions, read_references
from captionkit.data.coco.json_stream import array_batches
from captionkit.data.files import load_jsonl
from captionkit.data.preprocess import Preprocessor
from captionkit.data.tars import TarMember, contents
from captionkit.data.webdataset import load as load_webdataset
from captionkit.data.zips import zip_members
from captionkit.doctor.images import Limits, check_image
from captionkit.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    ImageError,
    MetricError,
)
from captionkit.evaluation import read_predictions as read_own_predictions
from captionkit.metrics.document_frequencies import DocumentFrequencies
from captionkit.recipe import DataConfig, Recipe
from captionkit.report import write_report
from captionkit.run_folder import RunFolder
from captionkit.score_files import score_files
from captionkit.tensors import TensorFiles
from captionkit.tracking import SkippedImages, read_history
from captionkit.types import TrainEvent

HUGE, DEEP = "9" * 5000, "[" * 100_000
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi")
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 10)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi")
)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("r.json", f'{{"seed": {HUGE}}}', "digits"),
        ("r.json", DEEP, "not valid JSON"),
        ("r.yaml", f"seed: {HUGE}", "digits"),
        ("r.yaml", f"training: {{seed: 0x{'f' * 9000}}}", "thousands of digits|must be"),
        ("r.yaml", DEEP, "not valid YAML"),
        ("r.yaml", "model: \0", "unacceptable character"),
        ("r.yaml", "model: 2001-99-99", "month must be"),
        ("r.yaml", "model: !!timestamp x", "not valid YAML"),
        ("r.yaml", 'model: !!int ""', "not valid YAML"),
        ("r.yaml", "? [a]\n: 1", "unhashable|should hold settings"),
        ("r.yaml", LAUGHS, "more than 100,000 values"),
        ("r.yaml", MERGES, "more than 100,000 values"),
        ("r.yaml", "a: &a [*a]", "more than 100,000 values"),
        ("r.yaml", "backend_options: {when: 2001-01-01}", "plain ones"),
        ("r.yaml", "backend_options: {x: !!set {a}}", "plain ones"),
        ("r.yaml", "backend_options: {1: a}", "plain ones"),
        ("r.yaml", f"backend_options: {{x: {'[' * 30}{']' * 30}}}", "plain ones"),
        ("r.yaml", "model: x\n" * 200_000, "larger than 1,048,576 bytes"),
    ],
)
def test_recipes_that_are_refused(tmp_path, name, text, words):
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=words) as caught:
        Recipe.from_file(tmp_path / name)
    assert len(str(caught.value)) < 2000


def test_a_recipe_with_a_lone_surrogate_can_be_kept(tmp_path):
    recipe = Recipe(model="\ud800")
    for name, text in (("r.json", recipe.to_json()), ("r.yaml", recipe.to_yaml())):
        (tmp_path / name).write_text(text, "utf-8")
        assert Recipe.from_file(tmp_path / name) == recipe


def test_a_name_that_is_too_long_is_an_image_that_is_not_there(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text(json.dumps({"image": "b" * 5000, "caption": "x"}), "utf-8")
    with pytest.raises(DataError, match="are not below"):
        load_jsonl(DataConfig(train_file=str(file)), "train")


@pytest.mark.parametrize(
    ("read", "name", "text", "words"),
    [
        (read_predictions, "p.json", f'{{"1": {HUGE}}}', "not valid JSON"),
        (
            read_predictions,
            "p.json",
            '{"annotations": [{"image_id": 1}], "images": null}',
            "no cap",
        ),
        (read_predictions, "p.json", '{"1": "a", "2": []}', "0 captions"),
        (read_predictions, "p.csv", f'image_id,caption\n1,"[{HUGE}]"\n2,a\n2,b', "2 captions"),
        (read_references, "r.csv", f"image_id,caption\n1,{'[' * 20_000}\n,x", "does not say"),
    ],
)
def test_captions_that_are_refused(tmp_path, read, name, text, words):
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(DataError, match=words):
        read(tmp_path / name)


@pytest.mark.parametrize(
    "text", [DEEP, HUGE, '{"weight_map": {"a": "\\ud800"}}', '{"weight_map": {"\\ud800": "one"}}']
)
def test_an_index_that_is_refused(tmp_path, text):
    (tmp_path / "one").write_bytes(save({"a": np.ones(1)}))
    (tmp_path / "model.safetensors.index.json").write_text(text, "utf-8")
    with pytest.raises(CheckpointError):
        dict(TensorFiles(tmp_path))


def test_floats_of_eight_bits_are_refused(tmp_path):
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(2))
    with pytest.raises(CheckpointError, match="unsupported type F8_E4M3"):
        dict(TensorFiles(tmp_path))


def test_a_processor_that_is_nested_too_deeply(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(DEEP, "utf-8")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Preprocessor.from_checkpoint(tmp_path)


@pytest.mark.parametrize("number", ["1" + "0" * 400, "NaN", "Infinity", "true", '"1"'])
@pytest.mark.parametrize("name", ["image_mean", "image_std", "rescale_factor"])
def test_a_processor_whose_numbers_are_none(tmp_path, name, number):
    text = f'{{"image_processor_type": "ViTImageProcessor", "{name}": {number}}}'
    (tmp_path / "preprocessor_config.json").write_text(text, "utf-8")
    with pytest.raises(CheckpointError, match=f"{name} should be"):
        Preprocessor.from_checkpoint(tmp_path)


def test_tars_that_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTIONKIT_CACHE", str(tmp_path))
    file = tmp_path / "train.tar"
    info = tarfile.TarInfo("\udcff.png")
    file.write_bytes(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + bytes(2048))
    with pytest.raises(DataError, match="is not UTF-8"):
        load_webdataset(DataConfig(train_file=str(file)), "train")
    with pytest.raises(ImageError, match="shorter"):
        TarMember(str(file), "x", 512, 2**62).read_bytes()


def test_a_gzip_header_that_ends_early(tmp_path):
    file = tmp_path / "train.tar.gz"
    file.write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(DataError, match=r"train\.tar\.gz"):
        list(contents(file))


@pytest.mark.parametrize("orientation", [0, 9, 262])
def test_an_orientation_that_there_is_not_turns_nothing(tmp_path, orientation):
    file, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.arange(96 * 64 * 3, dtype=np.uint8).reshape(96, 64, 3))
    picture.save(file, exif=exif)
    preprocess = Preprocessor.square(8)
    fast = preprocess.read(str(file), fast_jpeg=True)
    picture.save(file)
    assert (fast == preprocess.read(str(file), fast_jpeg=True)).all()


def test_a_second_page_without_a_size_leaves_the_first():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "TIFF")
    content = bytearray(buffer.getvalue())
    start = struct.unpack_from("<I", content, 4)[0]
    after = start + 2 + 12 * struct.unpack_from("<H", content, start)[0]
    struct.pack_into("<I", content, after, len(content))  # a directory of no entries follows
    content += struct.pack("<HI", 0, 0)
    facts = check_image(lambda: bytes(content), Limits())
    assert facts.size == (8, 8)
    assert "unreadable" not in dict(facts.problems)


def test_a_zip_with_a_member_of_no_name(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTIONKIT_CACHE", str(tmp_path))
    content = zipped(0)
    at = content.index(b"PK\1\2")
    name = len("train2017/" + next(iter(FILES)))
    shorter = content[: at + 28] + b"\0\0" + content[at + 30 : at + 46] + content[at + 46 + name :]
    end = shorter.index(b"PK\5\6")
    size = struct.unpack("<I", shorter[end + 12 : end + 16])[0] - name
    (tmp_path / "a.zip").write_bytes(
        shorter[: end + 12] + struct.pack("<I", size) + shorter[end + 16 :]
    )
    names = [row["member"] for row in zip_members(tmp_path / "a.zip")["image"]]
    assert names == ["", *(f"train2017/{name}" for name in [*FILES][1:])]


def test_what_a_run_left_damaged(tmp_path):
    run = RunFolder(tmp_path)
    run.folder.mkdir()
    whole = b'{"step": 1}\n'
    for damaged in (b"[1]", b"{}", HUGE.encode(), DEEP.encode(), b"\xc0", b'{"step": "1"}'):
        run.history.write_bytes(whole + damaged + b"\n" + whole)
        assert read_history(run.history) == [{"step": 1}]
        run.skipped.write_bytes(b'{"image_id": "1", "reason": "r"}\n' + damaged)
        assert SkippedImages(run.skipped, keep=True).reasons == {"1": "r"}
        (run.folder / "metrics.json").write_bytes(damaged[:9000] + b"]")
        with pytest.raises(DataError, match=r"damaged|should hold"):
            run.metrics()
        (run.folder / "predictions.jsonl").write_bytes(damaged)
        with pytest.raises(DataError, match="is damaged"):
            read_own_predictions(run.folder)


def test_skipped_images_whose_names_are_not_utf_8(tmp_path):
    """Where they are taken note of, and where a run goes on."""
    file = tmp_path / "skipped.jsonl"
    names = ("\udcff.png", "\udcfe.png")
    for name in names:
        skipped = SkippedImages(file, keep=True)
        skipped(TrainEvent("skip", 1, 2, 0.5, {"image_id": name, "reason": "r"}))
    assert skipped.reasons == SkippedImages(file, keep=True).reasons == dict.fromkeys(names, "r")


@pytest.mark.parametrize("number", ["1e999", HUGE[:4000], "NaN", "true"])
def test_a_report_of_a_run_with_numbers_that_are_none(tmp_path, number):
    names = ("seconds", "images_per_second", "parameters", "trainable", "train_images", "skipped")
    facts = ", ".join(f'"{name}": {number}' for name in names)
    (tmp_path / "run.json").write_text(f"{{{facts}}}", "utf-8")
    (tmp_path / "metrics.json").write_text("{}", "utf-8")
    page = write_report(tmp_path, None, "x").read_text("utf-8")
    assert "Folder" in page
    assert "Training images" not in page


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../../x.txt"}, {"file": "/tmp/x.txt"}, {"file": 1}, {"image": "\ud800"},
        {"image": "a\0b"}, {"image": ""}, {"caption": {"a": 1}}, {"caption": "\ud800"},
        {"score": "1"}, {"score": 2**63}, {"before": 1}, {"alternatives": [1]},
        {"alternatives": [{"caption": "x", "score": []}]}, {"failed": "x"},
        {"token_probabilities": [{"token": 1, "probability": 1}]}, {"image": 1, "applied": True},
    ],
)  # fmt: skip
def test_journal_rows_that_are_refused(tmp_path, change):
    """Each by itself: what stands before and after it is kept."""
    row = {"image": "a.png", "caption": "x", "score": -1.0, "file": "a.txt"}
    file = tmp_path / "journal.jsonl"
    for rows, kept in (([row, row], 2), ([row, row | change], 1), ([row | change, row], 1)):
        file.write_text("".join(json.dumps(one) + "\n" for one in rows), "utf-8")
        assert len(list(Journal(file).rows())) == kept


def test_a_file_of_captions_with_a_name_of_no_system(tmp_path):
    output = tmp_path / "out.jsonl"
    output.write_text('{"image": "\\ud800.png", "caption": "x"}\n', "utf-8")
    place = Place(tmp_path, output, tmp_path, tmp_path / "failed", tmp_path / "review")
    TableFile(place, BulkConfig(output=str(output))).look()


def test_what_follows_an_empty_object_is_an_error():
    for text in ("{} x", '{}"images": []}'):
        with pytest.raises(ValueError, match="more after the end"):
            list(array_batches(io.BytesIO(text.encode()), ("images",)))


def test_scores_of_lone_surrogates_can_be_written(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text(
        '{"image_id": "\\ud800", "prediction": "\\ud800", "references": ["x"]}', "utf-8"
    )
    score_files(file, None, ("wer",)).write_csv(tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text("utf-8").splitlines()[1] == r"\ud800,\ud800,1.0"


def test_document_frequencies_packed_otherwise(tmp_path):
    file = tmp_path / "df.npz"
    DocumentFrequencies.from_references([["a dog"]]).save(file)
    content = bytearray(file.read_bytes())
    at = content.index(b"PK\1\2")
    content[at + 10] = 99  # a method of compression that there is not
    file.write_bytes(content)
    with pytest.raises(MetricError, match="damaged"):
        DocumentFrequencies.load(file)
