"""HTTP/1.1 (RFC 9112) with Upgrade to TLS (RFC 2817): `head` are pure functions, `upgrade` is a session."""

from .upgrade import HTTP as HTTP
from .upgrade import IPP as IPP
