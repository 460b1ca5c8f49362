"""What docs/security.md claims and no other test holds; and that the tests which it names exist."""

from __future__ import annotations

import ast
import csv
import dataclasses
import gzip
import io
import json
import re
import struct
import tarfile
import threading
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzz.harness import memory_bound
from PIL import Image

import captionkit
from captionkit import models
from captionkit.backends import __file__ as backends
from captionkit.cli import main
from captionkit.compare import compare_files
from captionkit.data import images
from captionkit.data.coco import json_stream
from captionkit.data.coco.annotation_files import captions_table
from captionkit.data.coco.layout import Found
from captionkit.data.images import open_image
from captionkit.data.tars import contents, members
from captionkit.errors import CheckpointError, ConfigError, DataError, ImageError, MetricError
from captionkit.evaluation import Evaluation, Prediction
from captionkit.metrics.document_frequencies import DocumentFrequencies
from captionkit.model_card import model_card
from captionkit.recipe import Recipe, field_names
from captionkit.run_folder import RunFolder, write_evaluation_report
from captionkit.score_files import score_files
from captionkit.tensors import TensorFiles

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "captionkit").rglob("*.py"))


def test_every_test_that_the_page_names_exists():
    page = (ROOT / "docs/security.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w/.]+)::(\w+)`", page)
    assert len(named) > 30
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        assert name in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}, (file, name)
    rows = [line for line in page.splitlines() if line.startswith("| ") and "::" not in line]
    assert set(rows) == {"| claim | tests |", "| --- | --- |"}  # no claim without a test


# ---- nothing is run ----------------------------------------------------------------------------


def test_yaml_makes_no_objects(tmp_path):
    file, victim = tmp_path / "r.yaml", tmp_path / "victim"
    for tag in (f"!!python/object/apply:os.system ['touch {victim}']", "!!python/name:os.system"):
        file.write_text(f"model: {tag}\n", "utf-8")
        with pytest.raises(ConfigError, match="could not determine a constructor"):
            Recipe.from_file(file)
    assert not victim.exists()


def test_the_lint_rules_are_on():
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"]
    # pickle, marshal, yaml.load, eval
    assert {"S301", "S302", "S506", "S307"} <= set(lint["select"])
    assert not {"S301", "S302", "S506", "S307"} & set(lint["ignore"])
    assert "pickle" in lint["flake8-tidy-imports"]["banned-api"]


def test_no_source_unpacks_runs_or_unpickles():
    """Beside the lint: calls by name, wherever they stand."""
    banned = {"extractall", "unpack_archive", "eval", "exec", "system", "popen", "unsafe_load",
              "full_load", "allow_pickle"}  # fmt: skip
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                # model.eval() of torch is another
                assert name not in banned or (name == "eval" and not node.args), (path, name)
                for word in node.keywords:
                    if word.arg in ("shell", "allow_pickle"):
                        assert getattr(word.value, "value", True) is False, path
                    if word.arg == "weights_only":
                        assert getattr(word.value, "value", False) is True, path


def test_remote_code_is_off():
    assert Recipe().trust_remote_code is False
    for function in (captionkit.load, models.resolve_model, models.load_tokenizer):
        assert function.__kwdefaults__ is None
        code = function.__code__
        names = code.co_varnames[: code.co_argcount]
        defaults = dict(zip(names[-len(function.__defaults__) :], function.__defaults__))
        assert defaults["trust_remote_code"] is False
    # where it is handed on it is never switched on
    for path in SOURCES:
        text = path.read_text("utf-8")
        assert "trust_remote_code=True" not in text, path
    assert not any(pattern.endswith(".py") for pattern in models._DOWNLOADED)


def test_no_image_runs_a_program(tmp_path):
    file = tmp_path / "a.jpg"
    Image.new("RGB", (4, 4)).save(file, "EPS")
    with pytest.raises(ImageError, match="not an image, or of a kind"):
        open_image(file)
    assert "EPS" not in images.formats()
    assert {"JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"} <= set(images.formats())


# ---- bounds ------------------------------------------------------------------------------------


def test_large_images_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_ALONE", 100)
    at_once, most, lock = 0, 0, threading.Lock()
    load = Image.Image.load

    def counted(self):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        threading.Event().wait(0.02)
        with lock:
            at_once -= 1
        return load(self)

    content = io.BytesIO()
    Image.new("RGB", (20, 20)).save(content, "BMP")
    from PIL import BmpImagePlugin

    monkeypatch.setattr(BmpImagePlugin.BmpImageFile, "load", counted)
    threads = [threading.Thread(target=open_image, args=(content.getvalue(),)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_bomb_of_names_in_a_tar(tmp_path):
    """A header that says that a name is a gigabyte long, in a file of a megabyte."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**30
    packed = tmp_path / "a.tar.gz"
    with gzip.open(packed, "wb", compresslevel=1) as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(16):  # enough of it to be seen if it were read
            file.write(bytes(2**24))
    with (
        memory_bound("tar", 2**27),
        pytest.raises(DataError, match=r"header of 1,073,741,824 bytes"),
    ):
        list(contents(packed))
    plain = tmp_path / "a.tar"
    plain.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match=r"header of 1,073,741,824 bytes"):
        list(members(plain))


def test_declared_sizes_take_no_memory(tmp_path):
    shape = [2**20, 2**20]
    header = json.dumps(
        {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 2**42]}}
    ).encode()
    (tmp_path / "model.safetensors").write_bytes(
        struct.pack("<Q", len(header)) + header + bytes(64)
    )
    frequencies = tmp_path / "df.npz"
    with zipfile.ZipFile(frequencies, "w") as archive:
        text = b"{'descr': '<i8', 'fortran_order': False, 'shape': (281474976710656,), }".ljust(117)
        archive.writestr("format.npy", b"\x93NUMPY\1\0\x76\0" + text + b"\n" + bytes(24))
    info = tarfile.TarInfo("1.png")
    info.size = 2**40
    tar = tmp_path / "a.tar"
    tar.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with memory_bound("declared sizes", 2**27):
        with pytest.raises(CheckpointError):
            dict(TensorFiles(tmp_path))
        with pytest.raises(MetricError):
            DocumentFrequencies.load(frequencies)
        with pytest.raises(DataError):
            list(members(tar))


def test_a_bomb_of_text_in_a_zip(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_LARGEST", 2**22)
    file = tmp_path / "annotations.zip"
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("captions.json", "w") as member,
    ):
        member.write(b'{"images": [{"id": "')
        for _ in range(80):
            member.write(b"1" * 2**20)
    with memory_bound("JSON", 2**26), pytest.raises(DataError, match="one value is longer than"):
        captions_table(Found(file, "captions.json"), "train2017")


# ---- nothing elsewhere -------------------------------------------------------------------------


def test_an_index_names_files_beside_it(tmp_path):
    from safetensors.numpy import save_file

    (tmp_path / "model").mkdir()
    save_file({"a": np.ones(2)}, tmp_path / "outside.safetensors")
    index = tmp_path / "model/model.safetensors.index.json"
    for path in ("../outside.safetensors", str(tmp_path / "outside.safetensors")):
        index.write_text(json.dumps({"weight_map": {"a": path}}), "utf-8")
        with pytest.raises(CheckpointError, match=r"outside\.safetensors cannot be read"):
            dict(TensorFiles(tmp_path / "model"))


# ---- what is shown -----------------------------------------------------------------------------


def test_errors_and_warnings_on_the_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("p.json").write_text(json.dumps([{"image_id": "\x1b[2J\u202e", "caption": "a"}]), "utf-8")
    Path("r.json").write_text(json.dumps({"\x9b31m": "a"}), "utf-8")
    assert main(["score", "p.json", "r.json"]) == 1
    written = capsys.readouterr().err
    assert "\\x1b[2J\\u202e" in written
    assert "\\x9b31m" in written
    assert all(c.isprintable() or c == "\n" for c in written)


def test_scores_in_csv_are_no_formulas(tmp_path):
    rows = [{"image_id": "=1+1", "prediction": "@SUM(A1)", "references": ["a"]}]
    file = tmp_path / "p.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    score_files(file, None, ("wer",)).write_csv(tmp_path / "s.csv")
    compare_files(file, file, None, ("wer",), resamples=10).write_csv(tmp_path / "c.csv")
    for name in ("s.csv", "c.csv"):
        with open(tmp_path / name, encoding="utf-8", newline="") as opened:
            _, row = csv.reader(opened)
        assert row[:2] == ["'=1+1", "'@SUM(A1)"]


def test_the_model_card_holds_no_markup_of_others(tmp_path):
    recipe = Recipe(model="a/b\nlicense: x", hub_model_id='me/x")\nimport os #')
    recipe = recipe.replace(dataset="<img src=x>")
    folder = tmp_path / "[x](javascript:y)"
    card = model_card(folder, recipe, {"<b>": 1.0}, [Prediction("a", "|<b>`", -1.0, ("x",), {})])
    assert "\nlicense" not in card
    assert "\nimport os" not in card
    for markup in ("<img", "<b>", "[x]("):
        assert markup not in card.replace(f"\\{markup}", "").replace("\\<b\\>", "")


# ---- tokens ------------------------------------------------------------------------------------


def test_no_setting_holds_a_token():
    assert [name for name in field_names() if "token" in name] == [
        "max_caption_tokens",
        "max_new_tokens",
    ]
    for path in Path(backends).parent.rglob("options.py"):
        assert "hub_token" not in path.read_text("utf-8")


class Data:
    name, image_ids = "data", ["1"]

    def __len__(self):
        return 1

    def __getitem__(self, i):
        return dataclasses.make_dataclass("Row", ["image"])(Image.new("RGB", (8, 8)))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_token_is_written_nowhere(tmp_path, monkeypatch, capsys):
    token = "hf_" + "abcdefgh" * 4
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_TOKEN"):
        monkeypatch.setenv(name, token)
    recipe = Recipe(model="a/b", output_dir=str(tmp_path / "run"))
    run = RunFolder(tmp_path / "run")
    run.check(recipe)
    with run.locked(recipe, None):
        pass
    evaluation = Evaluation({"wer": 0.5}, [Prediction("1", "x", -1.0, ("y",), {})], [])
    write_evaluation_report(run.folder, evaluation, Data(), {"seconds": 1.0})
    (run.root / "README.md").write_text(model_card(run.root, recipe, {}, []), "utf-8")
    assert main(["recipes"]) == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"recipe.yaml", "run.json", "report.html", "README.md"} <= {path.name for path in files}
    assert not [path for path in files if token.encode() in path.read_bytes()]
    assert token not in "".join(capsys.readouterr())
