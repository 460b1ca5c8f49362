"""A cache never changes a pixel: whatever is kept, shared, full, damaged or gone."""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from captionkit.data import decoded_cache
from captionkit.data.decoded_cache import DecodedCache, key_of
from captionkit.data.preprocess import Preprocessor
from captionkit.errors import ConfigError, ImageError, OutputError

SIDE = 16
ONE = SIDE * SIDE * 3 + 20  # bytes of an image in the file
PREPROCESS = Preprocessor.square(SIDE)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The cache's folder: one of its own for each test, on a disk that is never too full."""
    monkeypatch.setenv("CAPTIONKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded_cache, "LEFT_FREE", 0)
    return tmp_path / "cache" / "decoded"


def encoded(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def opened(gigabytes=0.001, images=20, preprocess=PREPROCESS, fast_jpeg=False):
    return DecodedCache.open(preprocess, fast_jpeg, gigabytes, images)


def kept(cache, sources):
    """Which of the sources are in the cache, each with the right pixels."""
    found = [cache.get(key_of(source)) for source in sources]
    for source, pixels in zip(sources, found):
        if pixels is not None:
            np.testing.assert_array_equal(pixels, PREPROCESS.read(source))
    return [pixels is not None for pixels in found]


class Archived:
    """An image that is neither a path nor bytes, as those inside an archive."""

    def __init__(self, content):
        self.content = content

    def read_bytes(self):
        return self.content


def test_an_image_is_decoded_once(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(0))
    sources = [str(path), Path(path), encoded(1), bytearray(encoded(2)), Archived(encoded(3))]
    read = []

    def read_image(source):
        read.append(source)
        return PREPROCESS.read(source)

    for cache in (opened(), opened()):  # the second finds what the first kept
        for _ in range(2):
            for source in sources:
                pixels = cache.read(read_image, source)
                np.testing.assert_array_equal(pixels, PREPROCESS.read(source))
                assert pixels.flags.writeable
    assert len(read) == 4  # a path is a path, written as text or not


def test_what_is_decoded_already_passes_by():
    image = Image.open(io.BytesIO(encoded(0)))
    cache = opened()
    for source in (image, np.asarray(image)):
        assert key_of(source) is None
        np.testing.assert_array_equal(
            cache.read(PREPROCESS.read, source), PREPROCESS.read(encoded(0))
        )


def test_a_file_that_changed_is_another_image(tmp_path):
    path = tmp_path / "a.png"
    cache = opened()
    for seed in (0, 1):
        path.write_bytes(encoded(seed))
        os.utime(path, ns=(seed, seed))
        pixels = cache.read(PREPROCESS.read, path)
        np.testing.assert_array_equal(pixels, PREPROCESS.read(encoded(seed)))


def test_another_preprocessing_is_another_file():
    made = [
        PREPROCESS,
        Preprocessor.square(8),
        Preprocessor("ViTImageProcessor", (16, 16), None, 0, 1.0, (0, 0, 0), (1, 1, 1)),
        Preprocessor("CLIPImageProcessor", 16, (16, 16), 3, 1.0, (0, 0, 0), (1, 1, 1)),
        Preprocessor("CLIPImageProcessor", 20, (16, 16), 3, 1.0, (0, 0, 0), (1, 1, 1)),
    ]
    paths = {opened(preprocess=preprocess).path for preprocess in made}
    paths.add(opened(fast_jpeg=True).path)
    assert len(paths) == 6
    # scaling and normalising come after
    other = Preprocessor.square(SIDE, mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    assert opened(preprocess=other).path == opened().path


def test_an_image_that_cannot_be_read_is_an_error_and_not_kept(tmp_path):
    cache = opened()
    for source in (b"no image", str(tmp_path / "gone.jpg"), Archived(b""), 3):
        for _ in range(2):
            with pytest.raises(ImageError):
                cache.read(PREPROCESS.read, source)


@pytest.mark.parametrize("room", [1, 3, 10])
def test_the_bound_is_kept(room, folder):
    sources = [encoded(i) for i in range(12)]
    bound = 4096 + room * ONE
    cache = opened(bound / 1e9, images=12)
    for _ in range(2):
        for source in sources:
            np.testing.assert_array_equal(
                cache.read(PREPROCESS.read, source), PREPROCESS.read(source)
            )
    assert sum(kept(cache, sources)) == room
    assert sum(file.stat().st_size for file in folder.iterdir()) <= bound


def test_a_file_has_room_for_every_image_even_if_keys_crowd():
    cache = opened(images=100)
    keys = [i.to_bytes(8, "little") * 2 for i in range(1, 101)]
    for i, key in enumerate(keys):
        cache.put(key, np.full((SIDE, SIDE, 3), i, np.uint8))
    assert [int(cache.get(key)[0, 0, 0]) for key in keys] == list(range(100))
    assert cache.slots >= 100


def test_the_files_used_longest_ago_make_room(folder):
    bound = 3 * (4096 + 11 * ONE) / 1e9
    sizes = [(20, 12), (12, 20), (15, 16)]
    caches = []
    for age, size in enumerate(sizes):
        preprocess = Preprocessor("ViTImageProcessor", size, None, 3, 1.0, (0, 0, 0), (1, 1, 1))
        caches.append(opened(bound, 7, preprocess))
        caches[-1].put(key_of(b"x"), np.full((*size, 3), 7, np.uint8))
        os.utime(caches[-1].path, (age, age))
    first, second, third = (cache.path for cache in caches)
    assert all(path.exists() for path in (first, second, third))
    os.utime(first, (9, 9))  # used again
    newest = opened(bound, 7)
    assert newest.path.exists()
    assert first.exists()
    assert not second.exists()
    assert sum(file.stat().st_size for file in folder.iterdir()) <= bound * 1e9
    # who still has it open reads on, and writes nowhere
    assert caches[1].get(key_of(b"x")).max() == 7
    with pytest.warns(UserWarning, match="No more decoded images are kept"):
        caches[1].put(key_of(b"y"), np.zeros((12, 20, 3), np.uint8))
    assert not second.exists()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    damage=st.lists(
        st.tuples(
            st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=900), st.booleans()
        ),
        min_size=1,
        max_size=4,
    ),
    again=st.booleans(),
)
def test_whatever_is_overwritten_no_pixel_is_wrong(folder, damage, again):
    shutil.rmtree(folder, ignore_errors=True)
    sources = [encoded(i) for i in range(6)]
    cache = opened(images=6)
    for source in sources:
        cache.read(PREPROCESS.read, source)
    assert all(kept(cache, sources))
    size = cache.path.stat().st_size
    with open(cache.path, "r+b") as file:
        for place, junk, at_the_front in damage:
            # behind the header, which only counts when a file is opened
            place = 4096 + int(place * (size - 4096 if not at_the_front else 300))
            file.seek(place)
            file.write(junk[: size - place])
    if again:
        cache = opened(images=6)
    for _ in range(2):
        for source in sources:
            pixels = cache.read(PREPROCESS.read, source)
            np.testing.assert_array_equal(pixels, PREPROCESS.read(source))


@pytest.mark.parametrize("damage", ["cut", "empty", "longer", "header"])
def test_a_damaged_file_is_made_anew(damage):
    cache = opened()
    cache.read(PREPROCESS.read, encoded(0))
    size = cache.path.stat().st_size
    del cache  # a mapped file that gets shorter ends a process
    path = next(Path(os.environ["CAPTIONKIT_CACHE"]).glob("decoded/*.pixels"))
    with open(path, "r+b") as file:
        if damage == "header":
            file.write(b"[]")
        else:
            file.truncate({"cut": size - 1, "empty": 0, "longer": size + 1}[damage])
    with pytest.warns(UserWarning, match="is damaged; the images are decoded anew"):
        cache = opened()
    assert cache.path == path
    assert kept(cache, [encoded(0)]) == [False]
    cache.read(PREPROCESS.read, encoded(0))
    assert kept(opened(), [encoded(0)]) == [True]


def test_threads_may_share_it():
    sources = [encoded(i) for i in range(30)]
    cache, wrong = opened(images=30), []

    def read(shift):
        for i in range(60):
            source = sources[(i + shift) % 30]
            if not np.array_equal(cache.read(PREPROCESS.read, source), PREPROCESS.read(source)):
                wrong.append(source)

    threads = [threading.Thread(target=read, args=(shift,)) for shift in (0, 1, 15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(kept(cache, sources))


def read_all(seed: int) -> int:
    """In a process of its own: how many of the pixels were wrong."""
    decoded_cache.LEFT_FREE = 0
    cache = opened(images=40)
    order = np.random.default_rng(seed).permutation(40)
    read = [(encoded(int(i)), cache.read(PREPROCESS.read, encoded(int(i)))) for i in order]
    return sum(not np.array_equal(pixels, PREPROCESS.read(source)) for source, pixels in read)


def test_processes_may_fill_it_at_once(folder):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(read_all, range(3), chunksize=1) == [0, 0, 0]
    assert len(list(folder.glob("*.pixels"))) == 1
    assert len(list(folder.glob("*.partial"))) == 0
    # a slot that two took at once may be lost, and is filled again
    sources = [encoded(i) for i in range(40)]
    assert sum(kept(opened(images=40), sources)) >= 38
    read_all(0)
    assert all(kept(opened(images=40), sources))


def test_what_a_killed_process_left_is_removed(folder):
    folder.mkdir(parents=True)
    (folder / "16x16-25-0123.77.partial").write_bytes(b"half")
    opened()
    assert not list(folder.glob("*.partial"))


def test_a_full_disk_stops_the_filling_and_nothing_else(monkeypatch):
    cache = opened()
    cache.read(PREPROCESS.read, encoded(0))
    monkeypatch.setattr(decoded_cache, "LEFT_FREE", 2**70)
    with pytest.warns(UserWarning, match=r"No more decoded images .* of the disk are free"):
        cache.read(PREPROCESS.read, encoded(1))
    for i in range(4):  # a second warning would be an error
        pixels = cache.read(PREPROCESS.read, encoded(i))
        np.testing.assert_array_equal(pixels, PREPROCESS.read(encoded(i)))
    assert kept(cache, [encoded(0), encoded(1)]) == [True, False]


def test_impossible_caches_are_errors(folder):
    with pytest.raises(ConfigError, match=r"image_cache_gb=1e-09 has no room for one image"):
        opened(1e-9)
    folder.parent.mkdir()
    folder.write_bytes(b"a file where the folder should be")
    with pytest.raises(OutputError, match=r"CAPTIONKIT_CACHE .* or image_cache_gb to 0"):
        opened()
