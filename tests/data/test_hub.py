import datasets
import pytest
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from PIL import Image

from captionkit.data import hub, pokemon
from captionkit.errors import ConfigError, DataError, HubError
from captionkit.recipe import DataConfig


def table(count: int, **columns):
    columns = columns or {"text": [f"caption {i}" for i in range(count)]}
    images = [Image.new("RGB", (4, 3), (i, 0, 0)) for i in range(count)]
    return datasets.Dataset.from_dict({"image": images, **columns}).cast_column(
        "image", datasets.Image()
    )


@pytest.fixture
def served(monkeypatch):
    """Serve a `DatasetDict`, or raise an error, in place of the Hub; says what was asked for."""
    asked = []

    def serve(answer):
        def load_dataset(*args, **kwargs):
            asked.append(args)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return serve


def caused(error: Exception, cause: Exception) -> Exception:
    """As `raise error from cause` leaves it."""
    error.__cause__ = cause
    return error


def bare(kind: type[Exception]) -> Exception:
    """An error of the Hub's client without the response that its constructor wants."""
    return kind.__new__(kind)


# The clients change (requests, httpx, httpx2); the names of their errors do not.
class ConnectError(Exception):
    pass


class TimeoutException(Exception):
    pass


# ---- the source "hub"


def test_splits_and_columns(served):
    asked = served(
        datasets.DatasetDict(
            {"train": table(3), "val": table(2), "extra": table(2, alt=["a", "b"])}
        )
    )
    config = DataConfig(dataset_id="user/set", dataset_config="en")
    assert hub.load(config, "train").captions_of(2) == ("caption 2",)
    assert asked == [("user/set", "en")]
    assert len(hub.load(config, "validation")) == 2
    assert hub.load(config, "test") is None
    with pytest.raises(DataError, match=r"user/set extra has no caption column.*image, alt"):
        hub.load(config, "extra")
    named = DataConfig(dataset_id="user/set", caption_column="alt")
    assert hub.load(named, "extra").captions_of(1) == ("b",)
    with pytest.raises(DataError, match=r"no split 'trian'; did you mean 'train'.*extra"):
        hub.load(config, "trian")


def test_no_id():
    with pytest.raises(ConfigError, match="needs dataset_id"):
        hub.load(DataConfig(), "train")


ERRORS = {
    "offline": (
        ConnectionError("Couldn't reach 'a/b' on the Hub (OfflineModeIsEnabled)"),
        HubError,
        r"cannot be reached \(HF_HUB_OFFLINE is set",
    ),
    "no network": (
        caused(ConnectionError("Couldn't reach 'a/b'"), ConnectError("no route")),
        HubError,
        r"cannot be reached \(check the connection\)",
    ),
    "slow": (TimeoutException("timed out"), HubError, "cannot be reached"),
    "gone": (
        caused(
            DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub or cannot be accessed."),
            bare(RepositoryNotFoundError),
        ),
        HubError,
        "no public dataset a/b",
    ),
    "gated": (
        caused(
            DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub."),
            bare(GatedRepoError),
        ),
        HubError,
        "is gated: ask for access",
    ),
    "script": (
        RuntimeError("Dataset scripts are no longer supported, but found b.py"),
        HubError,
        "no longer runs",
    ),
    "configuration": (
        ValueError("BuilderConfig 'x' not found. Available: ['en', 'de']"),
        ConfigError,
        r"dataset_config=None of a/b.*Available: \['en', 'de'\]",
    ),
    "other": (OSError("line one\nline two"), HubError, "OSError: line one line two"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_one_line_that_says_what_to_do(served, case):
    error, kind, message = ERRORS[case]
    served(error)
    with pytest.raises(kind, match=message) as raised:
        hub.load(DataConfig(dataset_id="a/b"), "train")
    assert "\n" not in str(raised.value)
    assert "a/b" in str(raised.value)


def test_the_hub_itself_when_offline():
    # `datasets` itself, in the offline mode that the tests run in
    if not datasets.config.HF_HUB_OFFLINE:
        pytest.skip("HF_HUB_OFFLINE is not set")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        hub.load(DataConfig(dataset_id="a/b"), "train")


# ---- the source "pokemon-blip"


@pytest.mark.parametrize("case", ["gone", "offline"])
def test_pokemon_that_are_gone(served, case):
    asked = served(ERRORS[case][0])
    with pytest.raises(HubError) as error:
        pokemon.load(DataConfig(), "train")
    assert asked == [("lambdalabs/pokemon-blip-captions", None)]
    for part in ("DMCA", "--dataset-id", "--data-dir", "--dataset critters"):
        assert part in str(error.value)


def test_pokemon_from_another_copy(served):
    asked = served(datasets.DatasetDict({"train": table(3)}))
    config = DataConfig(dataset_id="user/copy")
    assert pokemon.load(config, "train").captions_of(0) == ("caption 0",)
    assert asked == [("user/copy", None)]
    assert pokemon.load(config, "validation") is None


def save_dataset(folder, data):
    data.save_to_disk(folder)


def save_dict(folder, data):
    datasets.DatasetDict({"train": data}).save_to_disk(folder)


def save_parquet(folder, data):
    folder.mkdir()
    data.to_parquet(folder / "pokemon.parquet")


def save_as_on_the_hub(folder, data):
    (folder / "data").mkdir(parents=True)
    data.select([0, 1]).to_parquet(folder / "data" / "train-00000-of-00002-abc.parquet")
    data.select([2]).to_parquet(folder / "data" / "train-00001-of-00002-def.parquet")


def save_images(folder, data):
    folder.mkdir()
    for i, row in enumerate(data):
        row["image"].save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(row["text"])


@pytest.mark.parametrize(
    "save", [save_dataset, save_dict, save_parquet, save_as_on_the_hub, save_images]
)
def test_pokemon_from_a_local_copy(tmp_path, save, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    save(tmp_path / "copy", table(3))
    config = DataConfig(data_dir=str(tmp_path / "copy"))
    dataset = pokemon.load(config, "train")
    assert [example.captions for example in dataset] == [(f"caption {i}",) for i in range(3)]
    assert [example.image.getpixel((0, 0)) for example in dataset] == [(i, 0, 0) for i in range(3)]
    assert pokemon.load(config, "validation") is None


def test_pokemon_from_a_folder_that_is_wrong(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        pokemon.load(DataConfig(data_dir=str(tmp_path / "none")), "train")
    with pytest.raises(DataError, match="no images"):
        pokemon.load(DataConfig(data_dir=str(tmp_path)), "train")
    (tmp_path / "a.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match="is not a Parquet file"):
        pokemon.load(DataConfig(data_dir=str(tmp_path)), "train")
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(DataError, match="The Arrow copy in"):
        pokemon.load(DataConfig(data_dir=str(tmp_path)), "train")
