"""Fetching with bounded patience: a server that cannot be reached or says nothing is one line, soon.

A download that moves is never cut off: `READ` counts from the last byte that came.
"""

from __future__ import annotations

import math
import os
import socket
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from threading import Thread
from typing import Any

from harness.core.errors import one_line

CONNECT = 8.0  # seconds until a server has accepted a connection, with the search for its address
READ = 15.0  # seconds until the next byte


_given_up: dict[str, float] = {}
"""Server -> until when it is not tried again, since it said nothing: the library asks in two manners, one by one."""


class UnreachableError(Exception):
    """A server that cannot be reached, does not answer or stops in the middle; the message is part of a line."""


def host_of(url: str) -> str:
    """The server of an address, without a user's name and password."""
    parts = urllib.parse.urlsplit(url)
    return (parts.hostname or url) + (f":{parts.port}" if parts.port else "")


def _through(url: str) -> str:
    """The address that a connection is made to: the server's, or that of the proxy before it."""
    parts = urllib.parse.urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return url
    return proxy if "//" in proxy else f"http://{proxy}"


def check(url: str) -> None:
    """Make sure that something accepts connections where an address leads, within `CONNECT` seconds.

    Args:
        url: http or https; all else is taken to be there.

    Raises:
        UnreachableError: nothing does; the message names the server.
    """
    place = _through(url)
    try:
        parts = urllib.parse.urlsplit(place)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError as error:
        raise UnreachableError(f"{place!r} is no address: {one_line(error)}") from None
    if port is None or not parts.hostname:
        return
    found: list[str] = []

    def attempt() -> None:
        try:
            socket.create_connection((parts.hostname or "", port), timeout=CONNECT).close()
            found.append("")
        except (OSError, UnicodeError) as error:
            found.append(reason_of(error))

    # the search for an address cannot be interrupted: its thread is left behind
    thread = Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(CONNECT)
    why = found[0] if found else f"no connection within {CONNECT:g} s"
    if why:
        proxy = "" if place == url else f" through the proxy {host_of(place)}"
        raise UnreachableError(f"no network: {host_of(url)} cannot be reached{proxy} ({why})")


def reason_of(error: BaseException) -> str:
    """Why a connection failed, in a few words, without a library's words around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, socket.gaierror):
        return "its name is not known here"
    if isinstance(error, TimeoutError):
        return f"no connection within {CONNECT:g} s"
    return (error.strerror if isinstance(error, OSError) else None) or one_line(error)


def silent(host: str) -> str:
    """What is said of a server that accepts and sends nothing more."""
    return f"{host} accepted the connection and sent nothing for {READ:g} s"


def _words(error: Exception, host: str) -> str:
    """A failure of a request as part of a line."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "ProxyError" in kinds:
        return f"no network: the proxy before {host} refuses the connection ({reason_of(error)})"
    if "ConnectTimeout" in kinds or "ConnectError" in kinds:
        return f"no network: {host} cannot be reached ({reason_of(error)})"
    if "TimeoutException" in kinds:
        return silent(host)
    return f"{host} broke the connection off ({reason_of(error)})"


def _guarded(stream: Any, base: type, kind: type[Exception], host: str) -> Any:
    """The body of an answer, whose silence is an error that nobody tries again."""

    class Guarded(base):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            try:
                yield from stream
            except kind as error:
                raise UnreachableError(silent(host)) from error

        def close(self) -> None:
            stream.close()

    return Guarded()


def _client(plain: Callable[[], Any]) -> Any:
    """A client of the hub's library with our patience; it makes each failing request once.

    The library would try a silent server six times, ten seconds each. A body that breaks off is still taken up where
    it ended, by the library.
    """
    made = plain()
    library = import_module(type(made).__module__.partition(".")[0])  # httpx, by the name of this version
    failure: type[Exception] = library.TransportError

    class Patient(type(made)):  # type: ignore[misc]
        def send(self, request: Any, **options: Any) -> Any:
            limits = {"connect": CONNECT, "read": READ, "write": READ, "pool": None}
            request.extensions = {**request.extensions, "timeout": limits}
            host = host_of(str(request.url))
            if time.monotonic() < _given_up.get(host, -math.inf):
                raise UnreachableError(silent(host))
            try:
                answer = super().send(request, **options)
            except failure as error:
                if isinstance(error, library.ReadTimeout):
                    _given_up[host] = time.monotonic() + READ
                raise UnreachableError(_words(error, host)) from error
            if not answer.is_closed:
                answer.stream = _guarded(answer.stream, library.SyncByteStream, library.TimeoutException, host)
            return answer

    made.close()
    return Patient(event_hooks=made.event_hooks, follow_redirects=True)


@cache
def bound_hub() -> None:
    """Give the hub's client, and with it the library of datasets, this module's patience."""
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # a second protocol, with a patience of its own
    import huggingface_hub
    from huggingface_hub.utils import _http

    plain = _http.default_client_factory
    huggingface_hub.set_client_factory(lambda: _client(plain))


def check_hub() -> None:
    """Make sure that the hub can be reached, unless it is switched off.

    Raises:
        UnreachableError: it cannot.
    """
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:
        check(constants.ENDPOINT)


def unreachable(error: BaseException | None) -> UnreachableError | None:
    """The error about the network among those that an error comes from; None where there is none."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, UnreachableError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
