"""Which SASL mechanisms can work through a gateway that ends TLS (RFC 4422, RFC 5802 6).

EXTERNAL would authenticate the gateway's certificate or address, not the client's.  A channel
binding (`-PLUS`) never matches, as TLS differs on the two legs; and a client that can bind but is
not offered to do so says so (gs2 flag `y`), which a backend that can bind must take for an attack.
So the base mechanism goes too, where another one remains.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

PLUS = b"-PLUS"
_BINDS = re.compile(rb"(?:.*-PLUS|HT-.*-(?:UNIQ|EXPR|ENDP))\Z")
"""The second are hashed tokens of XMPP (draft-schmaus-kitten-sasl-ht)."""
EXTERNAL = b"EXTERNAL"
MECHANISM = re.compile(rb"[A-Za-z0-9_-]{1,40}\Z")
"""RFC 4422 3.1 allows 20 octets; some servers' own names are longer."""

RESPONSE = re.compile(rb"(?:(?:[A-Za-z0-9+/]+={0,2}|=|\*)[ \t]*)?\Z")
"""A client's line in a dialogue, or its initial response: base64, `=` for nothing, `*` to cancel (RFC 4954 4,
RFC 9051 6.2.2, RFC 5034 4).  Such lines are long; in nothing else could a server that splits them find a command.
Blanks behind base64 are no part of it; a line of blanks alone is no response."""

BLANKS = b" \t"
CANCEL = b"*"

INITIAL_RESPONSE = 12288
"""Octets of an initial response that pass: RFC 4954 4 names them as sufficient.  Tokens of XOAUTH2 have thousands."""
REQUEST_LINE = INITIAL_RESPONSE + 64
"""Octets of a whole AUTH command: its verb and the name of the mechanism come before the initial response."""

_KNOWN = re.compile(
    rb"PLAIN|LOGIN|EXTERNAL|ANONYMOUS|NTLM|MSN|OTP|SKEY|SECURID|SXOVER-PLUS|OPENID20|SAML20|X?OAUTH(?:2|10A|BEARER)?"
    rb"|(?:CRAM|DIGEST|LDAPDB)-MD5|GSSAPI|(?:GSS-)?SPNEGO(?:-PLUS)?|KERBEROS_V[45]|(?:GS2|EAP)-[A-Z0-9]+(?:-PLUS)?"
    rb"|SCRAM-[A-Z0-9]+(?:-[0-9]+)?(?:-PLUS)?|HT-[A-Z0-9-]+-(?:ENDP|UNIQ|EXPR|NONE)|ECD[A-Z0-9]+-[A-Z0-9]+-CHALLENGE"
    rb"|X-OAUTH2|(?:DOVECOT|X-GOOGLE|X-FACEBOOK|DELEGATED)-(?:TOKEN|PLATFORM)"
    # Ways to log in that are no SASL: of POP3 and NNTP, IRC, XMPP, LDAP, PostgreSQL, MySQL.
    rb"|USER|APOP|PASS|IQ-AUTH|DIALBACK|SIMPLE|TRUST|KERBEROS|PASSWORD|MD5|SSPI|DIALOG|PARSEC|(?:AUTH|UNIX)_SOCKET"
    rb"|[A-Z0-9]+(?:_[A-Z0-9]+)?_PASSWORD|CLIENT_ED25519|AUTH_GSSAPI(?:_CLIENT)?|[0-9]{1,2}",
    re.IGNORECASE,
)
OTHER = b"other"

PASSWORD = frozenset({b"PLAIN", b"LOGIN", b"CRAM-MD5", b"DIGEST-MD5", b"OAUTHBEARER", b"XOAUTH2"})

LAYERED = frozenset({b"GSSAPI", b"GSS-SPNEGO", b"DIGEST-MD5", b"KERBEROS_V4", b"NTLM"})
"""Mechanisms that may go on with packets of their own after success (RFC 4422 3.7)."""


def binds(name: bytes) -> bool:
    """Whether this mechanism (in upper case) is bound to a TLS channel."""
    return bool(_BINDS.match(name))


def is_known(mechanism: bytes) -> bool:
    """Whether this is the name of a mechanism, which anybody may read.  A client may have said its password there."""
    return _KNOWN.fullmatch(mechanism) is not None


def unusable(offered: Iterable[bytes]) -> frozenset[bytes]:
    """The mechanisms of a backend's list (in upper case) that must not be offered to a client."""
    names = {name.upper() for name in offered}
    bound = set(filter(binds, names))
    bases = {name.removesuffix(PLUS) for name in bound} & names
    hidden = bound | ({EXTERNAL} & names)
    if PASSWORD & (names - bases):
        hidden |= bases
    return frozenset(hidden)


def usable(offered: Iterable[bytes]) -> list[bytes]:
    """Those that may be offered to a client, as they stand in the list; blanks around a name are no part of it."""
    names = list(offered)
    hidden = unusable(name.strip() for name in names)
    return [name for name in names if name.strip().upper() not in hidden]


def bound(lines: Iterable[bytes]) -> set[bytes]:
    """What looks like a mechanism with channel binding in a list's lines."""
    return {word for line in lines for word in line.upper().split() if word.endswith(PLUS)}


def is_request(arguments: bytes) -> bool:
    """Whether these are the arguments of an AUTH command: a mechanism, and an initial response at most."""
    mechanism, _, initial = arguments.rstrip(b" ").partition(b" ")
    return bool(MECHANISM.match(mechanism) and RESPONSE.match(initial)) and not cancels(initial)


def cancels(response: bytes) -> bool:
    """Whether this response takes the exchange back."""
    return response.strip(BLANKS) == CANCEL


def proves(mechanism: bytes, response: bytes) -> bool:
    """Whether a client that says this has said anything that can prove who it is.

    Before that nothing is a success, whatever the server's reply looks like: in no mechanism does the server
    authenticate a client that has sent no data (RFC 4422 3).  Where the data may be empty, an empty response must
    still be sent: that is a whole login in ANONYMOUS (RFC 4505 2), and in EXTERNAL, which is refused here.
    """
    if cancels(response):
        return False
    return mechanism.upper() == b"ANONYMOUS" or response.strip(BLANKS) not in (b"", b"=")


def refused(mechanism: bytes) -> bool:
    """Whether a client that asks for this mechanism is refused by the gateway itself."""
    name = mechanism.upper()
    return name == EXTERNAL or binds(name)
