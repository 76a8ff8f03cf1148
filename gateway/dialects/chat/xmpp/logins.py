"""How clients log in.

SASL (RFC 6120 6), SASL2 (XEP-0388), jabber:iq:auth (XEP-0078).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from ....records import dataclass
from ... import sasl
from ...users import Claim, shortened
from . import words
from .xml import Element, Stanza

SASL: Final = {f"{words.SASL} auth": words.SASL, f"{words.SASL2} authenticate": words.SASL2}
"""What begins a login -> its namespace."""
BARE: Final = sasl.PASSWORD - {b"CRAM-MD5", b"DIGEST-MD5"}
"""Mechanisms that show the password or token."""
GUESSED: Final = frozenset({"not-authorized", "credentials-expired", "account-disabled", "invalid-authzid"})
"""Failures (RFC 6120 6.5) that say something about the client's credentials."""

_QUERY: Final = f"{words.IQ_AUTH} query"
_USERNAME: Final = f"{words.IQ_AUTH} username"
_SECRETS: Final = frozenset({f"{words.IQ_AUTH} password", f"{words.IQ_AUTH} digest"})
"""XEP-0078 2."""
_FIRST: Final = f"{words.SASL2} initial-response"
_IQ: Final = "jabber:client iq"
_ENCRYPTION: Final = f"{words.SASL} encryption-required"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login that is under way."""

    verdict: Callable[[Element], str | None]
    """A unit of the server's -> `ok`, `failed` (the credentials may be wrong), `refused`, `more` (the client's turn),
    or None for what has nothing to do with it."""
    claim: Claim
    """Who the client says that it is, and whether it proves that."""
    answers: frozenset[str] = frozenset()
    """What a client may say to `more`."""

    def hear(self, said: Element) -> None:
        """A response of the client's; in SASL2 the first one has an element of its own."""
        first = [each.text for each in said.children if each.name == _FIRST]
        taken_back = said.name.endswith(" abort")
        self.claim.hear(sasl.CANCEL if taken_back else "".join(first or [said.text]).strip().encode("utf-8"))


def by_sasl(namespace: str, said: Element) -> Attempt | None:
    """None where the backend must not hear of this mechanism."""
    claim = Claim.named(said.attributes.get("mechanism", "").encode("utf-8"), None, None)
    if claim is None:
        return None
    answers = frozenset(f"{namespace} {local}" for local in ("response", "abort", "next"))
    attempt = Attempt(partial(_verdict, namespace), claim, answers)
    if said.text or said.children or claim.mechanism == b"ANONYMOUS":  # which may have nothing to say
        attempt.hear(said)
    return attempt


def _verdict(namespace: str, element: Element) -> str | None:
    """Of SASL and SASL2."""
    own, _, local = element.name.partition(" ")
    if own != namespace:
        return None
    if local == "failure":
        conditions = {each.name.split(" ")[-1] for each in element.children}
        return "failed" if conditions & GUESSED else "refused"
    return {"success": "ok", "challenge": "more", "continue": "more"}.get(local)


def by_query(element: Element) -> Attempt | None:
    """Of a client that does not use SASL; None for anything else."""
    kept = element.attributes
    queries = [each for each in element.children if each.name == _QUERY]
    if element.name != _IQ or kept.get("type") not in ("set", "get") or not queries:
        return None
    tried = any(each.name in _SECRETS and each.text for each in queries[0].children)
    if kept.get("type") == "get" and not tried:
        return None  # it asks for the fields; with credentials Prosody takes this for a login, too
    attempt = Attempt(partial(_answer_to, kept.get("id")), Claim("IQ-AUTH"))
    names = [each.text for each in queries[0].children if each.name == _USERNAME]
    attempt.claim.user = shortened("".join(names).encode("utf-8"))
    attempt.claim.tried = tried
    return attempt


def _answer_to(identity: str | None, element: Element) -> str | None:
    """To an <iq/> with this id."""
    if element.name != _IQ or element.attributes.get("id") != identity:
        return None
    if element.attributes.get("type") == "result":
        return "ok"
    denied = any(
        each.name.endswith(" not-authorized") or each.attributes.get("code") == "401" for each in element.all()
    )
    return "failed" if denied else "refused"


def shows_secret(said: Element) -> bool:
    """Whether whoever listens now has a password or a token."""
    if said.name in SASL:
        return said.attributes.get("mechanism", "").upper().encode("utf-8") in BARE and bool(said.text or said.children)
    return any(each.name.endswith(" password") and each.text for each in said.all())


def wants_encryption(answer: Stanza) -> bool:
    """Whether a login was refused for want of TLS."""
    assert answer.element is not None
    return any(each.name == _ENCRYPTION for each in answer.element.children)
