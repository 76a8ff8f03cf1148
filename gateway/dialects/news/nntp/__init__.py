"""NNTP (RFC 3977, RFC 4642, RFC 4643): `words` are pure functions, `exchange` is the backend's side."""

from .commands import DIALECT as DIALECT
