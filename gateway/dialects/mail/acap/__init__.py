"""ACAP (RFC 2244): `syntax` has pure functions, `commands` the session."""

from .commands import DIALECT as DIALECT
