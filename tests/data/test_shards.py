import shutil
import subprocess

import pytest

from captionkit.data.shards import expand_braces, holds_shards, shard_files
from captionkit.errors import DataError
from captionkit.recipe import DataConfig

ENDINGS = (".tar",)


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(split="train", **settings):
    files = shard_files(DataConfig(**settings), split, "webdataset", ENDINGS)
    return None if files is None else [file.name for file in files]


@pytest.mark.parametrize(
    "pattern",
    [
        "s-{000..012}.tar", "s-{9..11}.tar", "s-{09..11}.tar", "s-{3..1}.tar", "{a,b}-{0..1}.tar",
        "s-{a,bc,}.tar", "plain.tar", "s-{x}.tar", "{0..1}{0..1}", "s-{1..1}.tar",
    ],
)  # fmt: skip
def test_braces_are_those_of_the_shell(pattern):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash to compare with")
    out = subprocess.run([bash, "-c", f"printf '%s\\n' {pattern}"], capture_output=True, text=True)
    assert expand_braces(pattern) == out.stdout.splitlines()


@pytest.mark.parametrize("pattern", ["{0..9999999999}.tar", "{1..1000}{1..1000}{1..1000}"])
def test_patterns_for_too_many_files(pattern):
    with pytest.raises(DataError, match="stands for more than 1,000,000 files"):
        expand_braces(pattern)


def test_a_file_a_folder_or_a_pattern(tmp_path, monkeypatch):
    make(tmp_path, "s-00.tar", "s-01.tar", "s-02.tar", "notes.txt", ".s-03.tar", "more/x.tar")
    for pattern in ("s-{00..02}.tar", "s-*.tar", ""):
        assert found(train_file=f"{tmp_path}/{pattern}") == ["s-00.tar", "s-01.tar", "s-02.tar"]
    settings = {"train_file": f"{tmp_path}/s-0[01].tar", "validation_file": f"{tmp_path}/s-02.tar"}
    assert found(**settings) == ["s-00.tar", "s-01.tar"]
    assert found("validation", **settings) == ["s-02.tar"]
    assert found("test", **settings) is None
    monkeypatch.chdir(tmp_path)
    assert found(train_file="more/x.tar") == ["x.tar"]


def test_splits_of_a_folder(tmp_path):
    make(tmp_path, "train-0.tar", "train-1.tar", "val-0.tar", "test.tar", "data/train-2.tar")
    settings = {"data_dir": str(tmp_path)}
    assert found(**settings) == ["train-0.tar", "train-1.tar", "train-2.tar"]
    assert found("validation", **settings) == ["val-0.tar"]
    assert found("test", **settings) == ["test.tar"]
    assert found("extra", **settings) is None
    other = tmp_path / "other"
    make(other, "train/00.tar", "dev/00.tar")
    assert found(data_dir=str(other)) == ["00.tar"]
    assert found("validation", data_dir=str(other)) == ["00.tar"]
    plain = tmp_path / "plain"
    make(plain, "00000.tar", "00001.tar", "trainer.tar")
    assert found(data_dir=str(plain)) == ["00000.tar", "00001.tar", "trainer.tar"]
    assert found("validation", data_dir=str(plain)) is None
    assert holds_shards(plain, ENDINGS)
    assert not holds_shards(plain, (".parquet",))
    assert not holds_shards(tmp_path / "none", ENDINGS)


def test_what_is_not_there(tmp_path):
    make(tmp_path, "s-00.tar", "val-0.tar", "a.txt")

    def message(split="train", **settings):
        with pytest.raises(DataError) as error:
            found(split, **settings)
        return str(error.value)

    assert "needs data_dir" in message()
    assert "does not exist" in message(data_dir=str(tmp_path / "none"))
    assert "needs train_file" in message(validation_file=str(tmp_path / "s-00.tar"))
    assert "s-01.tar" in message(train_file=f"{tmp_path}/s-{{00..09}}.tar")
    assert "no file" in message(train_file=f"{tmp_path}/x-*.tar")
    assert "a.txt is none" in message(train_file=f"{tmp_path}/a.txt")
    (tmp_path / "empty").mkdir()
    assert "there are none" in message(train_file=f"{tmp_path}/empty")
    assert "no .tar files in" in message(data_dir=f"{tmp_path}/empty")
    (tmp_path / "s-00.tar").unlink()
    assert "has files for validation, but none for train" in message(data_dir=str(tmp_path))
