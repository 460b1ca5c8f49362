import random
import resource
import socket

import pytest

from captionkit.download.transfer import fetch_file, remote_size
from captionkit.errors import DataError, OutputError

CONTENT = random.Random(0).randbytes(200_000)


@pytest.fixture
def part(tmp_path, server):
    server.files["/a.zip"] = CONTENT
    return tmp_path / "a.zip.part"


def fetch(server, part, expected=None, **settings):
    waits: list[float] = []
    fetch_file(server.url("/a.zip"), part, expected, wait=waits.append, **settings)
    return waits


def left(part) -> list[str]:
    return sorted(file.name for file in part.parent.iterdir())


def test_a_whole_file(server, part):
    seen = []
    assert fetch(server, part, on_bytes=lambda done, total: seen.append((done, total))) == []
    assert part.read_bytes() == CONTENT
    assert left(part) == ["a.zip.part"]
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert remote_size(server.url("/a.zip")) == len(CONTENT)


def test_a_connection_that_breaks_is_gone_on_with_where_it_broke(server, part):
    server.answers = [server.broken(50_000), server.broken(70_000), server.broken(1), server.ranges]
    said = []
    waits = fetch(server, part, len(CONTENT), on_retry=said.append)
    assert part.read_bytes() == CONTENT
    assert [asked[1:] for asked in server.asked] == [
        (None, None), ("bytes=50000-", '"first"'), ("bytes=120000-", '"first"'),
        ("bytes=120001-", '"first"'),
    ]  # fmt: skip
    assert waits == [1, 1, 1]  # each attempt brought something
    assert said[0] == "the connection ended after 50,000 of 200,000 bytes; trying again in 1 s"


def test_another_call_goes_on_as_well(server, part):
    server.answers = [server.broken(50_000), server.status(404)]
    with pytest.raises(DataError, match=r"answered 404 Not Found\."):
        fetch(server, part)
    assert part.stat().st_size == 50_000
    server.answers = [server.ranges]
    fetch(server, part)
    assert part.read_bytes() == CONTENT
    assert server.asked[-1][1] == "bytes=50000-"


def test_a_server_without_ranges_starts_anew(server, part):
    server.answers = [lambda request: server.whole(request, 150_000), server.whole]
    fetch(server, part)
    assert part.read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_not_mixed(server, part):
    other = random.Random(1).randbytes(180_000)

    def changed(request):
        request.server.files["/a.zip"], request.server.etag = other, '"second"'
        server.ranges(request)

    server.answers = [server.broken(50_000), changed, server.ranges]
    fetch(server, part)
    assert part.read_bytes() == other


def test_a_server_that_sends_another_part_is_not_believed(server, part):
    def wrong(request):
        headers = {"Content-Range": f"bytes 100-{len(CONTENT) - 1}/{len(CONTENT)}"}
        request.reply(206, headers, CONTENT[100:])

    server.answers = [server.broken(50_000), wrong, server.ranges]
    fetch(server, part)
    assert part.read_bytes() == CONTENT


def test_a_size_that_is_said_too_large(server, part):
    """It cannot be met; what the server then says of its size counts, or the published one."""

    def too_large(request):
        request.reply(200, {"Content-Length": 2 * len(CONTENT)}, CONTENT)

    server.answers = [too_large, server.ranges]
    fetch(server, part)
    assert part.read_bytes() == CONTENT
    part.unlink()
    server.answers = [too_large]
    with pytest.raises(DataError, match=r"ended after 200,000 of 400,000 bytes, 6 times in a row"):
        fetch(server, part)
    assert part.read_bytes() == CONTENT
    with pytest.raises(DataError, match=r"has a file of 400,000 bytes, .* published one has 200,0"):
        fetch(server, part.with_name("other.part"), len(CONTENT))


def test_a_size_that_is_said_too_small(server, part):
    server.answers = [lambda request: request.reply(200, {"Content-Length": 70_000}, CONTENT)]
    with pytest.raises(DataError, match="has a file of 70,000 bytes"):
        fetch(server, part, len(CONTENT))
    assert not part.exists()
    fetch(server, part)  # nothing is known: whether it is whole is for its checksum to say
    assert part.read_bytes() == CONTENT[:70_000]


def test_more_bytes_than_there_should_be(server, part):
    server.answers = [lambda request: request.reply(200, {}, CONTENT)]  # of no announced length
    with pytest.raises(DataError, match="more than the 100,000 bytes"):
        fetch(server, part, 100_000)
    server.answers = [lambda request: request.reply(200, {}, CONTENT)]
    fetch(server, part.with_name("b.part"))
    assert part.with_name("b.part").read_bytes() == CONTENT


def test_errors_that_pass_are_waited_for(server, part):
    server.answers = [
        server.status(503),
        server.status(429, Retry_After=17),
        server.status(500, Retry_After=10**6),
        server.ranges,
    ]
    assert fetch(server, part) == [1, 17, 300]
    assert part.read_bytes() == CONTENT


def test_errors_that_stay(server, part):
    server.answers = [server.broken(1000), server.status(500)]
    with pytest.raises(DataError, match=r"500 Internal.* 6 times in a row; what has come \(1,000"):
        fetch(server, part)
    assert part.stat().st_size == 1000
    for code in (401, 403, 404, 410):
        server.asked.clear()
        server.answers = [server.status(code)]
        with pytest.raises(DataError, match=f"answered {code}"):
            fetch(server, part)
        assert len(server.asked) == 1
        assert part.stat().st_size == 1000


def test_redirects(server, part):
    server.files["/b.zip"] = CONTENT
    server.answers = [server.status(302, Location="/b.zip"), server.broken(50_000), server.ranges]
    fetch(server, part)
    assert part.read_bytes() == CONTENT
    part.unlink()
    server.answers = [server.status(302, Location="/a.zip")]
    with pytest.raises(DataError, match="answered 302"):
        fetch(server, part)
    server.answers = [server.status(302, Location="file:///etc/passwd")]
    with pytest.raises(DataError, match="answered 302"):
        fetch(server, part)
    assert not part.exists()


def test_nobody_there(part):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.zip"
        waits: list[float] = []
        with pytest.raises(DataError, match=r"the connection failed .*refused"):
            fetch_file(url, part, wait=waits.append)
        assert remote_size(url) is None
    assert waits == [1, 2, 4, 8, 16, 32]


def test_a_part_that_was_put_there_by_hand(server, part):
    part.write_bytes(CONTENT[:123_456])
    fetch(server, part, len(CONTENT))
    assert part.read_bytes() == CONTENT
    assert server.asked == [("/a.zip", "bytes=123456-", None)]
    fetch(server, part, len(CONTENT))  # whole: nothing is asked
    assert len(server.asked) == 1
    part.write_bytes(CONTENT + b"x")  # longer than the server's: that is another file
    fetch(server, part, len(CONTENT))
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("note", ["", "[]", '{"url": 3, "x": 1}', "\x00"])
def test_a_damaged_note_costs_nothing(server, part, note):
    part.write_bytes(CONTENT[:1000])
    part.with_name("a.zip.part.json").write_text(note)
    fetch(server, part)
    assert part.read_bytes() == CONTENT
    assert server.asked[0][1] == "bytes=1000-"


def test_what_the_disk_refuses_is_not_the_servers_fault(server, part):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(OutputError, match=r"a\.zip\.part cannot be written: File too large"):
            fetch(server, part)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    fetch(server, part)
    assert part.read_bytes() == CONTENT
    assert server.asked[-1][1] == "bytes=100000-"
    part.unlink()
    part.mkdir()
    with pytest.raises(OutputError, match=r"a\.zip\.part"):
        fetch(server, part)
