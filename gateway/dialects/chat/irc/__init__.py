"""IRC (RFC 2812, IRCv3): `syntax` are pure functions, `registration` is a session up to the server's welcome."""

from .registration import DIALECT as DIALECT
