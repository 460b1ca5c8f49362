from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captionkit.data import load_dataset, load_splits
from captionkit.data.content import content_hashes
from captionkit.data.dataset import CaptionDataset
from captionkit.data.mixing import Mixture, Source, sources, union
from captionkit.data.order import caption_index, visit_count, visits
from captionkit.errors import ConfigError, DataError
from captionkit.recipe import DataConfig, Recipe


def part(name: str, counts: list[int]) -> CaptionDataset:
    return CaptionDataset.from_pairs(
        [(f"{name}{i}.jpg", [f"{name} {i} {c}" for c in range(n)]) for i, n in enumerate(counts)],
        name,
    )


def mixed(*parts, epoch_images=None, captions="random") -> CaptionDataset:
    """Of (name, weight, captions of each image)."""
    config = DataConfig(mix=({},), mix_epoch_images=epoch_images, captions=captions)
    whole = [(Source(name, w, DataConfig()), part(name, counts)) for name, w, counts in parts]
    return union(whole, config, weighted=True)


def shown(dataset, captions="random", seed=0, epoch=0):
    """(source, image_id, caption) of each visit."""
    return [
        (dataset[i].image_id.split("/")[0], dataset[i].image_id, dataset[i].captions[c])
        for i, c in visits(dataset, captions, seed, epoch).tolist()
    ]


def test_sources_are_shown_by_weight():
    dataset = mixed(("a", 0.75, [2] * 10), ("b", 0.25, [2] * 10))
    assert len(dataset) == visit_count(dataset, "random") == 20
    for epoch in range(4):
        names = Counter(name for name, *_ in shown(dataset, epoch=epoch))
        assert names == {"a": 15, "b": 5}
    assert dataset.image_ids[:2] == ["a/a0.jpg", "a/a1.jpg"]
    assert dataset[10].image_id == "b/b0.jpg"
    assert dataset[10].source == "b0.jpg"
    assert dataset.captions_of(11) == ("b 1 0", "b 1 1")


@given(
    st.lists(
        st.tuples(st.floats(0.05, 20), st.lists(st.integers(1, 3), min_size=1, max_size=9)),
        min_size=1, max_size=4,
    ),
    st.sampled_from(["random", "first", "all"]),
    st.one_of(st.none(), st.integers(1, 60)),
    st.integers(0, 5),
)  # fmt: skip
@settings(deadline=None, max_examples=25)
def test_no_image_again_before_all_were_shown(parts, captions, epoch_images, seed):
    entries = [(f"s{i}", weight, counts) for i, (weight, counts) in enumerate(parts)]
    units = {name: sum(counts) if captions == "all" else len(counts) for name, _, counts in entries}
    total = epoch_images or sum(units.values())
    if total * min(weight for _, weight, _ in entries) < sum(weight for _, weight, _ in entries):
        return  # too small a weight, which is another test
    dataset = mixed(*entries, epoch_images=epoch_images, captions=captions)
    over_epochs = [shown(dataset, captions, seed, epoch) for epoch in range(3)]
    assert [len(epoch) for epoch in over_epochs] == [total] * 3
    assert total == visit_count(dataset, captions)
    weights = sum(weight for _, weight, _ in entries)
    for name, weight, _ in entries:
        each = [[visit for visit in epoch if visit[0] == name] for epoch in over_epochs]
        assert len({len(epoch) for epoch in each}) == 1
        assert abs(len(each[0]) - total * weight / weights) < 1
        run = [visit[1:] if captions == "all" else visit[1] for epoch in each for visit in epoch]
        for start in range(0, len(run), units[name]):
            round_ = run[start : start + units[name]]
            assert len(set(round_)) == len(round_)


def test_an_epoch_depends_on_seed_and_number_alone():
    dataset = mixed(("a", 1, [3] * 5), ("b", 2, [3] * 40))
    again = mixed(("a", 1, [3] * 5), ("b", 2, [3] * 40))
    assert (visits(dataset, "random", 1, 4) == visits(again, "random", 1, 4)).all()
    different = [visits(dataset, "random", s, e).tobytes() for s in (0, 1) for e in (0, 1)]
    assert len(set(different)) == 4
    # a is shown three times an epoch, each time in another order and with captions drawn anew
    mine = [visit for visit in shown(dataset) if visit[0] == "a"]
    assert len(mine) == 15
    orders = [tuple(v[1] for v in mine[i : i + 5]) for i in (0, 5, 10)]
    assert len(set(orders)) == 3
    for round_ in range(3):
        for _, image_id, caption in mine[round_ * 5 : round_ * 5 + 5]:
            assert caption[-1] == str(caption_index(0, round_, image_id, 3))


def test_the_turns_of_the_sources_are_spread():
    dataset = mixed(("a", 1, [1] * 500), ("b", 1, [1] * 500))
    first = np.array([name == "a" for name, *_ in shown(dataset)])
    # runs of equal turns among 1000 fair draws: mean 501, standard deviation 15.8
    runs = 1 + int((first[1:] != first[:-1]).sum())
    assert abs(runs - 501) < 4 * 15.8


def test_a_weight_that_is_too_small():
    with pytest.raises(ConfigError, match=r"weight of b in mix gives it none of the 11 images"):
        mixed(("a", 1000, [1] * 10), ("b", 1, [1]))
    assert len(mixed(("a", 1000, [1] * 10), ("b", 1, [1]), epoch_images=2000)) == 11
    assert Mixture(("a", "b"), (1.0, 1.0), (1, 2)).quotas([3, 4]) == [4, 3]


# ---- from settings


@pytest.fixture
def folders(tmp_path):
    for name, count in (("cats", 10), ("dogs", 30)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("RGB", (4, 3), (i, 0, 0)).save(tmp_path / name / f"{i}.png")
            (tmp_path / name / f"{i}.txt").write_text(f"{name} {i}")
    return tmp_path


def entries(folders, **settings):
    return ({"data_dir": str(folders / "cats"), "weight": 3, **settings},
            {"data_dir": str(folders / "dogs"), "weight": 1})  # fmt: skip


def test_a_mixture_from_settings(folders):
    config = DataConfig(mix=entries(folders), test_size=0.2)
    train, validation = load_splits(config, seed=0)
    assert (len(train), len(validation)) == (32, 8)
    assert Counter(i.split("/")[0] for i in train.image_ids) == {"cats": 8, "dogs": 24}
    assert Counter(i.split("/")[0] for i in validation.image_ids) == {"cats": 2, "dogs": 6}
    assert not set(train.image_ids) & set(validation.image_ids)
    assert Counter(name for name, *_ in shown(train)) == {"cats": 24, "dogs": 8}
    assert validation.mixture is None
    assert train[9].image.size == (4, 3)
    # each source is split as it is by itself
    alone = load_splits(DataConfig(data_dir=str(folders / "dogs"), test_size=0.2), seed=0)
    assert [f"dogs/{i}" for i in alone[1].image_ids] == validation.image_ids[2:]
    assert load_dataset(mix=config.mix, test_size=0.2, split="validation").image_ids == (
        load_splits(config, seed=42)[1].image_ids
    )
    assert len(load_dataset(mix=config.mix, test_size=0.2)) == 32


def test_settings_of_one_source_and_of_all(folders):
    config = DataConfig(
        mix=entries(folders, max_train_samples=2, test_size=0), min_caption_words=2,
        mix_epoch_images=100, test_size=0.1, captions="first",
    )  # fmt: skip
    train, validation = load_splits(config, seed=0)
    assert (len(train), len(validation)) == (2 + 27, 3)
    assert [source.config.min_caption_words for source in sources(config)] == [2, 2]
    assert len(visits(train, "first", 0, 0)) == visit_count(train, "first") == 100


def test_names_of_sources(folders):
    config = DataConfig(mix=(*entries(folders), *entries(folders)[:1], {"dataset": "critters"}))
    assert [s.name for s in sources(config)] == ["cats-1", "dogs", "cats-2", "critters"]
    hub = DataConfig(mix=({"dataset_id": "user/set"}, {"train_file": "x/y.csv"}))
    assert [s.name for s in sources(hub)] == ["user/set", "y.csv"]


def test_a_mixture_in_a_recipe_file(folders, tmp_path):
    (tmp_path / "r.yaml").write_text(
        "data:\n  mix:\n"
        f"  - {{data_dir: {folders}/cats, weight: 3}}\n  - {{data_dir: {folders}/dogs}}\n"
    )
    recipe = Recipe.from_file(tmp_path / "r.yaml")
    assert [s.weight for s in sources(recipe.data)] == [3.0, 1.0]
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert Recipe.from_file(tmp_path / "again.yaml") == recipe


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"mix": ({"data_dri": "x"},)}, r"mix, entry 1: .*'data_dri'; did you mean 'data_dir'"),
        ({"mix": ({}, {"weight": 0})}, r"mix, entry 2: weight=0 is not possible"),
        ({"mix": ({"weight": "much"},)}, "weight='much'"),
        ({"mix": ({"weight": True},)}, "weight=True"),
        ({"mix": ({"weight": float("nan")},)}, "weight=nan"),
        ({"mix": ({"captions": "all"},)}, "'captions' is the same for all sources: beside mix"),
        ({"mix": ({"mix": []},)}, "'mix' is the same"),
        ({"mix": ({"test_size": 2},)}, "mix, entry 1: test_size=2"),
        ({"mix": ({},), "data_dir": "x"}, "data_dir beside mix"),
        ({"mix": ({},), "max_train_samples": 5}, "max_train_samples beside mix"),
        ({"mix": ({},), "streaming": True}, "cannot be streamed"),
        ({"mix": ({},)}, "Say which data to use"),
        ({"mix": "coco"}, "must be a list of settings"),
        ({"mix": ("coco",)}, "must be a list of settings"),
        ({"mix_epoch_images": 0}, "mix_epoch_images=0"),
    ],
)
def test_mixtures_that_are_wrong(settings, expected):
    with pytest.raises(ConfigError, match=expected):
        load_splits(DataConfig(**settings), seed=0)


def test_a_source_that_is_wrong_is_named(folders):
    mix = ({"data_dir": str(folders / "cats")}, {"data_dir": str(folders / "cows")})
    with pytest.raises(DataError, match="cows"):
        load_splits(DataConfig(mix=mix), seed=0)
    with pytest.raises(DataError, match="no split 'test'"):
        load_dataset(mix=entries(folders), split="test")


def test_a_split_is_that_of_the_sources_that_have_it(folders):
    (folders / "cats").rename(folders / "train")
    (folders / "cats").mkdir()
    (folders / "train").rename(folders / "cats" / "train")
    (folders / "cats" / "validation").mkdir()
    for i in range(4):
        Image.new("RGB", (4, 3), (i, 9, 0)).save(folders / "cats/validation" / f"v{i}.png")
        (folders / "cats/validation" / f"v{i}.txt").write_text("a cat")
    mix = entries(folders)
    found = load_splits(DataConfig(mix=mix, test_size=0), seed=0)[1]
    assert load_dataset(mix=mix, test_size=0, split="validation").image_ids == found.image_ids
    assert len(found) == 4


def test_data_in_memory_are_not_beside_a_mixture(folders):
    with pytest.raises(ConfigError, match="in memory cannot be beside mix"):
        load_splits(DataConfig(mix=entries(folders)), 0, [(Image.new("RGB", (4, 4)), "x")])


@pytest.mark.parametrize("seed", range(4))
def test_equal_pictures_of_a_source_are_on_one_side(folders, seed):
    for i in range(30):
        picture = (folders / "dogs" / f"{i - i % 2}.png").read_bytes()
        (folders / "dogs" / f"{i}.png").write_bytes(picture)
    config = DataConfig(mix=entries(folders)[1:], test_size=0.2, group_by_content=True)
    train, validation = load_splits(config, seed)
    assert not set(content_hashes(train)) & set(content_hashes(validation))


def test_pictures_that_two_sources_share_are_reported(folders):
    config = DataConfig(mix=entries(folders), test_size=0.3, group_by_content=True)
    with pytest.warns(UserWarning, match="byte for byte"):
        load_splits(config, seed=0)
