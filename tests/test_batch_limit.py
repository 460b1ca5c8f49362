"""Halving of batches, with work that has no more room than for some."""

from __future__ import annotations

import pytest

from captionkit.batch_limit import BatchLimit
from captionkit.errors import ConfigError


class NoMemory(Exception):
    pass


class Device:
    """Fits `room` at once, and notes every attempt."""

    def __init__(self, room):
        self.room, self.attempts, self.released = room, [], 0

    def work(self, first, last, size):
        self.attempts.append((first, last, size))
        if size > self.room:
            raise NoMemory("of nothing left")
        return list(range(first, last))

    def release(self):
        self.released += 1

    def limit(self):
        return BatchLimit(lambda: "gpu:0", lambda error: isinstance(error, NoMemory), self.release)


@pytest.mark.parametrize("room", [1, 2, 3, 5, 8, 100])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 20])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 32])
@pytest.mark.filterwarnings("ignore:.*do not fit the memory")
def test_every_number_comes_once_and_in_order(room, count, batch_size):
    device = Device(room)
    parts = device.limit().run("caption", count, batch_size, device.work)
    assert [n for part in parts for n in part] == list(range(count))
    done = [attempt for attempt in device.attempts if attempt[2] <= room]
    assert len({size for _, _, size in done}) <= 1  # one size, so that nothing compiles twice
    assert all(last - first <= size <= batch_size for first, last, size in done)
    assert device.released == len(device.attempts) - len(done)


def test_the_smaller_size_is_remembered_and_said_once():
    device = Device(5)
    limit = device.limit()
    with pytest.warns(UserWarning, match=r"32 images.*gpu:0: going on with 4.*batch_size=4"):
        limit.run("caption", 40, 32, device.work)
    assert [size for _, _, size in device.attempts[:4]] == [32, 16, 8, 4]
    assert device.attempts[3][0] == 0  # nothing is left out
    device.attempts.clear()
    limit.run("caption", 40, 32, device.work)  # a second warning would be an error
    assert {size for _, _, size in device.attempts} == {4}


def test_work_that_needs_less_memory_has_its_own_size():
    device = Device(4)
    limit = device.limit()
    with pytest.warns(UserWarning, match="going on with 4"):
        limit.run(("caption", 8), 16, 16, device.work)
    device.room = 100
    device.attempts.clear()
    limit.run(("caption", 1), 16, 16, device.work)
    assert device.attempts == [(0, 16, 16)]


def test_one_that_does_not_fit_is_explained():
    device = Device(0)
    with pytest.raises(ConfigError, match=r"one image.*gpu:0.*num_beams.*dtype='bf16'") as caught:
        device.limit().run("caption", 3, 2, device.work)
    assert isinstance(caught.value.__cause__, NoMemory)


def test_other_errors_pass():
    def broken(first, last, size):
        raise KeyError("other")

    with pytest.raises(KeyError, match="other"):
        Device(1).limit().run("caption", 3, 2, broken)
