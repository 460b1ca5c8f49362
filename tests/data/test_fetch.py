import contextlib
import http.server
import io
import shutil
import socket
import ssl
import subprocess
import threading
import time
import typing

import numpy as np
import pytest
from PIL import Image

from captionkit.data import fetch as module
from captionkit.data.dataset import CaptionDataset
from captionkit.data.fetch import ALLOW_PRIVATE, RemoteImage, fetch, is_url
from captionkit.data.images import open_image
from captionkit.errors import ImageError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    return buffer.getvalue()


class Server(http.server.BaseHTTPRequestHandler):
    asked: typing.ClassVar[list[str]] = []

    def do_GET(self):
        Server.asked.append(self.path)
        if self.path == "/missing":
            return self.send_error(404)
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to?"))
            return self.end_headers()
        with contextlib.suppress(OSError):
            self.send_response(200)
            if self.path == "/slow-headers":
                for i in range(60):
                    self.send_header(f"X-{i}", "x")
                    self.flush_headers()
                    time.sleep(0.05)
            if self.path in ("/cut", "/huge"):
                self.send_header("Content-Length", "1000" if self.path == "/cut" else str(2**40))
            self.end_headers()
            self.answer()

    def answer(self):
        if self.path == "/silent":
            time.sleep(1)
        if self.path == "/dripping":
            for _ in range(40):
                self.wfile.write(b"x")
                time.sleep(0.05)
        while self.path == "/endless":
            self.wfile.write(b"x" * 2**16)
        self.wfile.write(b"" if self.path == "/empty" else png())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def _private(monkeypatch):
    monkeypatch.setenv(ALLOW_PRIVATE, "1")


@pytest.fixture
def resolved(monkeypatch):
    """Lets names resolve to what a test says, and says which addresses were connected to."""
    answers: dict[str, list[str]] = {}
    asked: typing.ClassVar[list[str]] = []
    real = socket.getaddrinfo

    def getaddrinfo(host, port, *args, **kwargs):
        if host not in answers:
            return real(host, port, *args, **kwargs)
        asked.append(host)
        found = []
        for place in answers[host]:
            family = socket.AF_INET6 if ":" in place else socket.AF_INET
            found.append((family, socket.SOCK_STREAM, 6, "", (place, port)))
        return found

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    answers["asked"] = asked
    return answers


def message(url: str) -> str:
    with pytest.raises(ImageError) as error:
        fetch(url)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_a_url():
    assert is_url("http://a")
    assert is_url("HTTPS://a/b.jpg")
    assert not is_url("file:///etc/passwd")
    assert not is_url("a.jpg")
    assert not is_url(b"http://a")


@pytest.mark.usefixtures("_private")
def test_an_image_is_fetched(address):
    assert fetch(f"{address}/a.png") == png()
    np.testing.assert_array_equal(open_image(f"{address}/a", allow_urls=True), PIXELS)
    assert fetch(f"{address}/to?/a.png") == png()
    assert fetch(f"{address}/to?{address}/to?/a.png") == png()


@pytest.mark.usefixtures("_private")
def test_answers_that_are_no_image(address, monkeypatch):
    monkeypatch.setattr(module, "URL_BYTES", 2**18)
    assert message(f"{address}/missing") == "the server answered 404 Not Found"
    assert "larger than" in message(f"{address}/endless")
    assert "larger than" in message(f"{address}/huge")
    assert "ended after" in message(f"{address}/cut")
    assert "redirect" in message(f"{address}/to?/to?/to?/to?/to?/to?/to?/to?/to?/to?/to?/to?/a")
    with pytest.raises(ImageError, match=r"Cannot read http://.*0 bytes"):
        open_image(f"{address}/empty", allow_urls=True)


@pytest.mark.usefixtures("_private")
@pytest.mark.parametrize("path", ["dripping", "silent", "slow-headers"])
def test_the_time_limit_is_for_all_of_it(address, monkeypatch, path):
    monkeypatch.setattr(module, "URL_SECONDS", 0.3)
    assert message(f"{address}/{path}") == "it took longer than 0.3 s"


@pytest.mark.usefixtures("_private")
def test_a_server_that_is_not_there():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "could not be fetched (" in message(f"http://127.0.0.1:{port}/a.jpg")
    for url in ("http://", "http://a b/c.jpg", "http://[::1/x.jpg", "http://a:port/"):
        assert "could not be fetched" in message(url)


# ---- private addresses


def test_an_address_of_this_machine_is_refused(address):
    Server.asked.clear()
    assert "127.0.0.1 is not a public address" in message(f"{address}/a.png")
    assert ALLOW_PRIVATE in message(f"{address}/a.png")
    assert "not a public address" in message(address.replace("127.0.0.1", "localhost"))
    assert Server.asked == []


@pytest.mark.parametrize("value", ["", "0"])
def test_the_variable_has_to_say_yes(address, monkeypatch, value):
    monkeypatch.setenv(ALLOW_PRIVATE, value)
    assert "not a public address" in message(f"{address}/a.png")


# of each block that is not for the public internet, by RFC 6890 and what replaced it
PRIVATE = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.0.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
    "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a00:1::1", "2001:db8::1", "2001::1", "fc00::1",
    "fd12:3456::1", "fe80::1", "fec0::1", "ff02::1", "ff0e::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "93.184.216.34", "172.32.0.1", "2606:4700::1111", "64:ff9b::808:808"]


@pytest.mark.parametrize("place", PRIVATE)
def test_private_addresses_are_refused(resolved, monkeypatch, place):
    monkeypatch.setattr(socket, "socket", None)  # nothing may be connected to
    resolved["photos.example"] = [place]
    assert "photos.example is" in message("http://photos.example/a.jpg")
    # one among public ones is enough
    resolved["photos.example"] = ["8.8.8.8", place]
    assert "not a public address" in message("https://photos.example/a.jpg")


@pytest.mark.parametrize("place", PUBLIC)
def test_public_addresses_are_tried(resolved, monkeypatch, place):
    tried = []

    class Socket:
        def __init__(self, *_):
            pass

        def settimeout(self, seconds):
            assert 0 < seconds <= module.URL_SECONDS

        def connect(self, where):
            tried.append(where)
            raise ConnectionRefusedError(111, "Connection refused")

        def close(self):
            pass

    monkeypatch.setattr(socket, "socket", Socket)
    resolved["photos.example"] = [place]
    assert "Connection refused" in message("http://photos.example:81/a.jpg")
    assert tried == [(place, 81)]


def test_spellings_of_an_address_that_resolvers_understand(address):
    port = address.rpartition(":")[2]
    for host in ("127.1", "2130706433", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]", "0"):
        text = message(f"http://{host}:{port}/a.png")
        assert "not a public address" in text or "could not be fetched" in text, host


def test_a_name_is_resolved_once_and_that_address_is_connected_to(resolved, address, monkeypatch):
    # a name server that gives a public address to who checks and a private one to who connects
    port = int(address.rpartition(":")[2])
    answers = iter([["93.184.216.34"], ["127.0.0.1"], ["127.0.0.1"]])
    connected = []
    asked = []

    def getaddrinfo(host, port, *args, **kwargs):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers)[0], port))]

    def connect(self, where):
        connected.append(where)
        raise ConnectionRefusedError(111, "Connection refused")

    class Socket(socket.socket):
        pass

    Socket.connect = connect
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "socket", Socket)
    message(f"http://rebinding.example:{port}/a.png")
    assert asked == ["rebinding.example"]
    assert connected == [("93.184.216.34", port)]


def test_redirects_are_checked(monkeypatch, address):
    # the first host counts as public here, so that only the redirect can be what is refused
    real = module._check_public
    monkeypatch.setattr(
        module, "_check_public", lambda host, found: host == "127.0.0.1" or real(host, found)
    )
    port = address.rpartition(":")[2]
    Server.asked.clear()
    assert "localhost is 127.0.0.1" in message(f"{address}/to?http://localhost:{port}/secret")
    assert "not http or https" in message(f"{address}/to?ftp://127.0.0.1/secret")
    assert "is not allowed" in message(f"{address}/to?file:///etc/passwd")
    assert not any(path == "/secret" for path in Server.asked)


def test_other_schemes_are_none_of_ours():
    for url in ("file:///etc/passwd", "ftp://example.org/a.jpg", "data:image/png;base64,AAAA", ""):
        assert message(url) == "its scheme is not http or https"


def test_proxies_would_resolve_names_themselves(resolved, address, monkeypatch):
    monkeypatch.setenv("http_proxy", address)
    resolved["photos.example"] = ["10.0.0.1"]
    Server.asked.clear()
    assert "not a public address" in message("http://photos.example/a.jpg")
    assert Server.asked == []
    # who allows addresses of the own network may use the network's proxy
    monkeypatch.setenv(ALLOW_PRIVATE, "1")
    assert fetch("http://photos.example/a.jpg") == png()
    assert Server.asked == ["http://photos.example/a.jpg"]


@pytest.mark.usefixtures("_private")
def test_certificates_are_checked(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        text = message(f"https://localhost:{server.server_port}/a.png")
        server.shutdown()
        thread.join()
    assert "certificate verify failed" in text.lower()


# ---- images of a dataset


@pytest.mark.usefixtures("_private")
def test_a_dataset_fetches_an_image_once(address, monkeypatch, tmp_path):
    monkeypatch.setenv("CAPTIONKIT_CACHE", str(tmp_path))
    dataset = CaptionDataset.from_pairs([(f"{address}/b.png", "x")], "made", allow_urls=True)
    Server.asked.clear()
    for _ in range(3):
        np.testing.assert_array_equal(dataset[0].image, PIXELS)
    assert Server.asked == ["/b.png"]
    # what fails is not kept
    for _ in range(2):
        with pytest.raises(ImageError, match="404"):
            open_image(RemoteImage(f"{address}/missing"))
    assert Server.asked[1:] == ["/missing"] * 2
    # a cache that cannot be written is done without
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CAPTIONKIT_CACHE", str(tmp_path / "file"))
    assert RemoteImage(f"{address}/b.png").read_bytes() == png()
