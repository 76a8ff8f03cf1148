"""IPP: HTTP, on a port of its own (RFC 8010)."""

from __future__ import annotations

from tests.pure.contract.answers.http import ANSWERS as HTTP

ANSWERS = HTTP
