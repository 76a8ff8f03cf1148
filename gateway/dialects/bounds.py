"""How much a backend or a client may say at once, the same for all line protocols."""

from __future__ import annotations

from typing import Final

from ..protocol.framing import Lines

SASL_LINE: Final = 65536
"""Octets of a SASL response line: RFC 4954 4 names 12288 as sufficient, Kerberos PACs are larger."""
REPLY_LINE: Final = 8192
"""Octets of a backend's line; the RFCs say 512 and long capability lists do not care."""
REPLY_LINES: Final = 1000
REPLY_OCTETS: Final = 256 * 1024
"""A backend's reply beyond these is an attack on our memory."""
REPLIES: Final = Lines(REPLY_LINE)
"""The framing of a backend's replies."""
RESPONSES: Final = Lines(SASL_LINE)
"""The framing of a SASL exchange."""
