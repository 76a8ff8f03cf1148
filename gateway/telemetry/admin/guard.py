"""Who may ask the admin listener: the Host header and the token of a request."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Collection
from ipaddress import ip_address

_PORT = re.compile(r":[0-9]{1,5}\Z")


def is_meant(host: str | None, names: Collection[str]) -> bool:
    """Whether a request with this Host header is meant for the gateway.

    A web page can make its own name lead to 127.0.0.1 (DNS rebinding), and then read what the browser gets from there.
    An address cannot be rebound; of names only those count that are known.  HTTP/1.1 demands the header (RFC 9110 7.2).
    """
    if not host:
        return False
    bare = _PORT.sub("", host)
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1]
    try:
        ip_address(bare)
    except ValueError:
        return bare.lower().rstrip(".") in names
    return True


def is_allowed(authorization: str | None, token: str) -> bool:
    """Whether the request has the token: `Bearer TOKEN` (RFC 6750), or as the password of Basic (RFC 7617), which is
    what a browser can ask for."""
    scheme, _, given = (authorization or "").partition(" ")
    match scheme.lower():
        case "bearer":
            return _same(given.strip(), token)
        case "basic":
            return _same(_password(given.strip()), token)
    return False


def _password(coded: str) -> str:
    try:
        return base64.b64decode(coded, validate=True).decode("utf-8").partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _same(given: str, token: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())
