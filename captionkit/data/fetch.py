"""Images from http(s) addresses, within limits of size and time, and never from inside a network.

A dataset's addresses were written by others. One that leads to this machine or to its neighbours
(a router's page, a cloud's metadata service) is refused: the host is resolved once, every address
that it has is checked, and the connection goes to the address that was checked, so that a second
answer of its name server changes nothing. Redirects are checked in the same way.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import ipaddress
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from captionkit.errors import ImageError
from captionkit.whole_files import whole_file

URL_SECONDS = 30.0
URL_BYTES = 64 * 2**20
ALLOW_PRIVATE = "CAPTIONKIT_ALLOW_PRIVATE_URLS"

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits


def is_url(source: object) -> bool:
    """Whether a source is an http(s) address."""
    return isinstance(source, str) and source[:8].lower().startswith(("http://", "https://"))


def fetch(url: str) -> bytes:
    """What an http(s) address holds: at most URL_BYTES, in at most URL_SECONDS all in all.

    Addresses that are not public are refused, and proxies of the environment are not used, unless
    CAPTIONKIT_ALLOW_PRIVATE_URLS=1 is set. Raises ImageError with the reason alone: whoever calls
    names the address.
    """
    if not is_url(url):
        raise ImageError("its scheme is not http or https")
    too_late = threading.Event()
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "captionkit"})
        with _watched(too_late) as connect:
            content = _read(_opener(connect).open(request, timeout=URL_SECONDS))
        if not too_late.is_set():  # a connection that was cut off may look like one that ended
            return content
        reason = ""
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"the server answered {error.code} {' '.join(str(error.reason).split())}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ImageError):
            raise cause from None
        if isinstance(cause, TimeoutError):
            too_late.set()
        reason = f"it could not be fetched ({cause or type(cause).__name__})"
    if too_late.is_set():
        reason = f"it took longer than {URL_SECONDS:g} s"
    raise ImageError(reason)


@dataclass(frozen=True)
class RemoteImage:
    """An image at an address, as a dataset holds it where URLs are allowed.

    It is fetched when it is read for the first time, and then kept in captionkit's cache.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def read_bytes(self) -> bytes:
        """The encoded image. Raises ImageError."""
        from captionkit.data.dataset import cache_dir

        name = hashlib.blake2b(self.url.encode("utf-8", "surrogatepass"), digest_size=20)
        kept = cache_dir() / "urls" / name.hexdigest()[:2] / name.hexdigest()
        with contextlib.suppress(OSError):
            return kept.read_bytes()
        content = fetch(self.url)
        # a full disk: it is fetched again next time
        with contextlib.suppress(OSError), whole_file(kept) as partial:
            partial.write_bytes(content)
        return content


def _read(response: Any) -> bytes:
    with response:
        announced = response.length  # None: the server does not say
        if announced is not None and announced > URL_BYTES:
            raise ImageError(f"it is larger than {URL_BYTES // 2**20} MiB")
        content = bytearray()
        while chunk := response.read1(2**16):
            content += chunk
            if len(content) > URL_BYTES:
                raise ImageError(f"it is larger than {URL_BYTES // 2**20} MiB")
    if announced is not None and len(content) < announced:
        raise OSError(f"the connection ended after {len(content):,} of {announced:,} bytes")
    return bytes(content)


# ---- connections -------------------------------------------------------------------------------


@contextlib.contextmanager
def _watched(too_late: threading.Event) -> Iterator[Any]:
    """Gives the function that connects; what it has connected is cut off after URL_SECONDS.

    The time limit of a socket is for one read, and a server may drip.
    """
    deadline = time.monotonic() + URL_SECONDS
    guards: list[socket.socket] = []

    def connect(address: tuple[str, int], timeout: float, source_address: Any = None) -> Any:
        connection = _connect(address, deadline)
        guards.append(connection.dup())
        return connection

    def cut() -> None:
        too_late.set()
        for guard in list(guards):
            with contextlib.suppress(OSError):
                guard.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(URL_SECONDS, cut)
    timer.daemon = True
    timer.start()
    try:
        yield connect
    finally:
        timer.cancel()
        for guard in guards:
            guard.close()


def _connect(address: tuple[str, int], deadline: float) -> socket.socket:
    host, port = address
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not _private_allowed():
        for *_, place in found:
            _check_public(host, str(place[0]))
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, place in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            connection.connect(place)
            return connection
        except OSError as error:
            connection.close()
            failure = error
    raise failure


def _check_public(host: str, found: str) -> None:
    address = ipaddress.ip_address(found.split("%")[0])
    for inner in _meant(address):
        local = inner.version == 6 and (inner.is_site_local or inner.is_reserved)
        if not inner.is_global or inner.is_multicast or local:
            what = host if host == str(address) else f"{host} is {address}, which"
            raise ImageError(
                f"{what} is not a public address; set {ALLOW_PRIVATE}=1 if "
                "addresses of your own network are meant to be fetched"
            )


def _meant(address: Any) -> list[Any]:
    """All addresses that a packet to this one may end at: IPv6 can carry IPv4 inside."""
    if address.version == 4:
        return [address]
    if address in _NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    inside = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    return [address, *(inner for inner in inside if inner is not None)]


def _private_allowed() -> bool:
    return os.environ.get(ALLOW_PRIVATE, "") not in ("", "0")


# ---- urllib, with these connections ------------------------------------------------------------


def _opener(connect: Any) -> urllib.request.OpenerDirector:
    def connections(kind: type[http.client.HTTPConnection]) -> Any:
        def make(*args: Any, **kwargs: Any) -> http.client.HTTPConnection:
            connection: Any = kind(*args, **kwargs)
            connection._create_connection = connect  # from where it takes its socket
            return connection

        return make

    class Http(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(connections(http.client.HTTPConnection), request)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(connections(http.client.HTTPSConnection), request)

    class Redirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *args: Any) -> urllib.request.Request | None:
            if not is_url(args[-1]):
                args[1].close()
                raise ImageError("it leads on to an address that is not http or https")
            return super().redirect_request(*args)

    # a proxy resolves names itself, so that what was checked here would not be what is fetched
    proxies: dict[str, str] | None = None if _private_allowed() else {}
    return urllib.request.build_opener(urllib.request.ProxyHandler(proxies), Http, Https, Redirect)
