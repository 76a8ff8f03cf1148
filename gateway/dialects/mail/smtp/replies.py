"""Replies and their lines (RFC 5321 4.2)."""

from __future__ import annotations

import re
from typing import Final

from ...replies import Reply as Reply
from ...replies import Replying as Replying

REPLY: Final = re.compile(rb"[2-5][0-9][0-9](?:[ -].*)?\Z", re.DOTALL)
ASIDE: Final = re.compile(rb"[01][0-9][0-9](?:[ -].*)?\Z", re.DOTALL)
"""Not a reply: a line that comes before one.  1yz is preliminary in RFC 821 E, 0yz what sendmail says after VERB."""
VERDICT: Final = re.compile(rb"[\s\0]*([245][0-9][0-9])(?![0-9.,:])([ -]?)(.*)\Z", re.DOTALL)
"""A line of a verdict, however sloppily written."""
LAST_LINE: Final = re.compile(rb"^[0-9]{3}(?: .*)?\r\n\Z", re.MULTILINE)
MASKED: Final = re.compile(rb"X{4,}[A-Z]?\Z")
"""What a Cisco firewall ("fixup", ESMTP inspection) writes over an extension that it does not let through."""
NO_EHLO: Final = frozenset({b"500", b"501", b"502", b"504", b"550"})
"""What servers older than ESMTP answer to EHLO (RFC 5321 3.2)."""
NO_TLS: Final = frozenset({b"454", b"500", b"501", b"502", b"503", b"504", b"530"})
"""Refusals of STARTTLS itself (RFC 3207 4); others are of the client."""
BAD_COMMAND: Final = frozenset({b"500", b"501", b"502", b"503", b"504"})


def listed(reply: bytes) -> list[bytes] | None:
    """The extensions in a reply to EHLO; None if it is none, or one to HELO after all."""
    lines = reply.splitlines()
    return [line[4:] for line in lines[1:]] if reply.startswith(b"250") else None
