"""POP3 (RFC 1939, RFC 2449, RFC 5034): `words` are pure functions, `exchange` is the backend's side."""

from .commands import DIALECT as DIALECT
