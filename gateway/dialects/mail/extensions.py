"""SMTP service extensions: which the gateway passes on, which it takes part in, which it hides; and why.

One table, for every keyword of IANA's registry and for the private ones of well-known servers.  The editor of EHLO
replies, the judge of commands and parameters, and docs/extensions.md are all made of it.

A keyword that is not in the table is passed on.  Nearly every extension adds a parameter to MAIL or RCPT, or a command
with a usual reply, and works through the gateway unchanged; old servers have many that nobody has written down, and
their users need them.  It is safe, for the gateway depends on no backend's good behaviour: it reads one reply to each
command, ends the session at a go-ahead (3yz) that it did not expect, and waits for the real verdict on a message.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from ...records import dataclass


class Treatment(Enum):
    """What becomes of an extension."""

    TRANSPARENT = "transparent"
    """Offered as the backend offers it; commands and parameters pass unchanged."""
    UNDERSTOOD = "understood"
    """Offered where it works; the gateway takes part in it."""
    HIDDEN = "hidden"
    """Not offered; its commands are answered 502, its parameters 555."""


@dataclass(frozen=True, slots=True)
class Extension:
    """A row of the table."""

    keyword: str
    """As in the EHLO reply, in upper case; with `*` at its end, every keyword that begins so."""
    source: str
    """Where it is defined, or who made it."""
    treatment: Treatment
    reason: str
    verbs: tuple[str, ...] = ()
    """Commands that belong to it, beside the one with the keyword's own name, if there is one."""
    parameters: tuple[str, ...] = ()
    """Parameters of MAIL and RCPT that belong to it."""
    authority: bool = False
    """By it a backend lets a trusted address, which is the gateway's, speak for others."""
    lengthens: bool = False
    """It makes MAIL and RCPT longer than 512 octets."""

    @property
    def wild(self) -> bool:
        return self.keyword.endswith("*")


TRANSPARENT: Final = Treatment.TRANSPARENT
UNDERSTOOD: Final = Treatment.UNDERSTOOD
HIDDEN: Final = Treatment.HIDDEN

_TURNED = (
    "turns the session round: the backend would send its mail to the client, and the gateway inspects no such mail"
)
_EARLY = "lets a client speak before the greeting and go by an earlier session's EHLO reply, which may be another's"
_EXCHANGE = "Exchange servers use it among themselves; the backend would trust what comes from the gateway's address"
_ASKS = "asks for a fact; one usual reply"

TABLE: Final = (
    # --- IANA's registry, in its order ---
    Extension("SEND", "RFC 821", UNDERSTOOD, "its command begins a message, like MAIL"),
    Extension("SOML", "RFC 821", UNDERSTOOD, "its command begins a message, like MAIL"),
    Extension("SAML", "RFC 821", UNDERSTOOD, "its command begins a message, like MAIL"),
    Extension("VRFY", "RFC 5321", TRANSPARENT, _ASKS),
    Extension("EXPN", "RFC 5321", TRANSPARENT, _ASKS),
    Extension("HELP", "RFC 5321", TRANSPARENT, _ASKS),
    Extension("TURN", "RFC 821", HIDDEN, _TURNED),
    Extension("8BITMIME", "RFC 6152", TRANSPARENT, "octets above 127 pass unchanged", parameters=("BODY",),
              lengthens=True),
    Extension("SIZE", "RFC 1870", UNDERSTOOD, "the size that a client declares grows by the gateway's `Received:`"
              " field", parameters=("SIZE",), lengthens=True),
    Extension("VERB", "sendmail", UNDERSTOOD, "lines with a code of 0yz come before the final reply; a client that said"
              " VERB gets them, and the final reply is waited for"),
    Extension("ONEX", "sendmail", TRANSPARENT, "announces that one message follows; one usual reply"),
    Extension("CHUNKING", "RFC 3030", UNDERSTOOD, "chunks are counted, and the first one holds the `Received:` field;"
              " without the offer they are read and refused", verbs=("BDAT",)),
    Extension("BINARYMIME", "RFC 3030", TRANSPARENT, "such messages come in chunks, which pass unchanged",
              parameters=("BODY",), lengthens=True),
    Extension("CHECKPOINT", "RFC 1845", HIDDEN, "DATA is answered 355 with a place to go on from, and the places differ"
              " by the gateway's `Received:` field", parameters=("TRANSID",)),
    Extension("DELIVERBY", "RFC 2852", TRANSPARENT, "a parameter", parameters=("BY",), lengthens=True),
    Extension("PIPELINING", "RFC 2920", UNDERSTOOD, "the gateway reads ahead, passes on one command at a time, and"
              " answers in order"),
    Extension("DSN", "RFC 3461", TRANSPARENT, "parameters", parameters=("RET", "ENVID", "NOTIFY", "ORCPT"),
              lengthens=True),
    Extension("ETRN", "RFC 1985", TRANSPARENT, "starts a delivery over another connection; one usual reply"),
    Extension("ENHANCEDSTATUSCODES", "RFC 2034", TRANSPARENT, "the gateway's own replies have such codes, too"),
    Extension("STARTTLS", "RFC 3207", UNDERSTOOD, "the gateway offers its own before TLS, and the backend's never"),
    Extension("NO-SOLICITING", "RFC 3865", TRANSPARENT, "a parameter", parameters=("SOLICIT",), lengthens=True),
    Extension("MTRK", "RFC 3885", TRANSPARENT, "a parameter", parameters=("MTRK",), lengthens=True),
    Extension("SUBMITTER", "RFC 4405", TRANSPARENT, "a parameter", parameters=("SUBMITTER",), lengthens=True),
    Extension("ATRN", "RFC 2645", HIDDEN, _TURNED),
    Extension("AUTH", "RFC 4954", UNDERSTOOD, "offered where the policy allows it, without the mechanisms that cannot"
              " work through a gateway", parameters=("AUTH",), lengthens=True),
    Extension("FUTURERELEASE", "RFC 4865", TRANSPARENT, "parameters", parameters=("HOLDFOR", "HOLDUNTIL"),
              lengthens=True),
    Extension("UTF8SMTP", "RFC 5336", TRANSPARENT, "parameters; replaced by SMTPUTF8", parameters=("ALT-ADDRESS",),
              lengthens=True),
    Extension("BURL", "RFC 4468", UNDERSTOOD, "the `Received:` field goes before it as a chunk; not offered where there"
              " is such a field and the backend takes no chunks"),
    Extension("SMTPUTF8", "RFC 6531", UNDERSTOOD, "a parameter; the `Received:` field says `with UTF8SMTPS`",
              parameters=("SMTPUTF8",), lengthens=True),
    Extension("CONPERM", "RFC 4141", TRANSPARENT, "a parameter", parameters=("CONPERM",), lengthens=True),
    Extension("CONNEG", "RFC 4141", TRANSPARENT, "a parameter; the reply to RCPT has more lines",
              parameters=("CONNEG",), lengthens=True),
    Extension("MT-PRIORITY", "RFC 6710", TRANSPARENT, "a parameter", parameters=("MT-PRIORITY",), lengthens=True),
    Extension("RRVS", "RFC 7293", TRANSPARENT, "a parameter", parameters=("RRVS",), lengthens=True),
    Extension("REQUIRETLS", "RFC 8689", UNDERSTOOD, "a promise that the message travels under TLS only; offered inside"
              " TLS where the backend's certificate is verified, too", parameters=("REQUIRETLS",), lengthens=True),
    Extension("LIMITS", "RFC 9422", TRANSPARENT, "numbers for the client; the backend counts"),
    # --- Drafts, and what single servers have ---
    Extension("PRDR", "Exim", HIDDEN, "the final dot is answered by 353, one reply for each recipient, and a verdict;"
              " who takes the first for the verdict delivers again, or loses mail", parameters=("PRDR",)),
    Extension("PIPECONNECT", "Exim", HIDDEN, _EARLY),
    Extension("PIPE_CONNECT", "Exim", HIDDEN, _EARLY),
    Extension("X_PIPE_CONNECT", "Exim", HIDDEN, _EARLY),
    Extension("QUICKSTART", "a draft", HIDDEN, _EARLY),
    Extension("WELLKNOWN", "Exim", TRANSPARENT, _ASKS),
    Extension("CLIENTID", "a draft", TRANSPARENT, "a client names its device; one usual reply"),
    Extension("XCLIENT", "Postfix", HIDDEN, "says who the client is; the gateway alone may (`identity = xclient`)",
              authority=True),
    Extension("XFORWARD", "Postfix", HIDDEN, "says who the client is", authority=True),
    Extension("XVERP", "Postfix", TRANSPARENT, "a parameter", parameters=("XVERP",), lengthens=True),
    Extension("XRCPTFORWARD", "Dovecot", HIDDEN, "says facts about a recipient that the backend trusts",
              parameters=("XRCPTFORWARD",), authority=True),
    Extension("XEXDATA", "Courier", HIDDEN, "the final dot is answered with a verdict for each recipient in one reply",
              verbs=("EXDATA",)),
    Extension("XSECURITY", "Courier", HIDDEN, "a promise that the message travels under TLS only, which the gateway"
              " cannot give", parameters=("SECURITY",)),
    Extension("XUSR", "sendmail", TRANSPARENT, "says that the message is new; one usual reply"),
    Extension("XADR", "Oracle, PMDF", TRANSPARENT, _ASKS),
    Extension("XCIR", "Oracle, PMDF", TRANSPARENT, _ASKS),
    Extension("XGEN", "Oracle, PMDF", TRANSPARENT, _ASKS),
    Extension("XSTA", "Oracle, PMDF", TRANSPARENT, _ASKS),
    Extension("XLOOP", "Oracle", TRANSPARENT, "a number by which a server finds that it talks to itself"),
    Extension("X-RCPTLIMIT", "ZMailer", TRANSPARENT, "a number for the client; the backend counts"),
    Extension("TIME", "Mercury", TRANSPARENT, _ASKS),
    Extension("XTRN", "SLmail", HIDDEN, _TURNED),
    Extension("X-EXPS", "Exchange", UNDERSTOOD, "AUTH by another name"),
    Extension("X-EXCHANGEAUTH", "Exchange", HIDDEN, "proves the certificate that the other end sees, which is the"
              " gateway's"),
    Extension("X-ANONYMOUSTLS", "Exchange", HIDDEN, "TLS inside TLS, which the gateway could not look into; what"
              " Exchange offers inside is for its own servers", authority=True),
    Extension("X-LINK2STATE", "Exchange", HIDDEN, _EXCHANGE, authority=True),
    Extension("XEXCH50", "Exchange", HIDDEN, _EXCHANGE + "; and its data follow a 354 of its own", authority=True),
    Extension("X-MESSAGECONTEXT", "Exchange", HIDDEN, _EXCHANGE + "; and its chunks are not part of the message",
              verbs=("XBDATBLOB",), parameters=("XMESSAGECONTEXT",), authority=True),
    Extension("XATTR", "Exchange", HIDDEN, _EXCHANGE, parameters=("XATTRDIRECT", "XATTRORGID"), authority=True),
    Extension("XOORG", "Exchange", HIDDEN, _EXCHANGE, parameters=("XOORG",), authority=True),
    Extension("XORAR", "Exchange", HIDDEN, _EXCHANGE, parameters=("XORAR",), authority=True),
    Extension("XORIGFROM", "Exchange", HIDDEN, _EXCHANGE, parameters=("XORIGFROM",), authority=True),
    Extension("XPROXY", "Exchange", HIDDEN, _EXCHANGE, authority=True),
    Extension("XPROXYFROM", "Exchange", HIDDEN, _EXCHANGE, authority=True),
    Extension("XPROXYTO", "Exchange", HIDDEN, _EXCHANGE, verbs=("XRSETPROXYTO",), authority=True),
    Extension("XRDST", "Exchange", HIDDEN, _EXCHANGE, parameters=("XRDST", "RDST"), authority=True),
    Extension("XSESSIONPARAMS", "Exchange", HIDDEN, _EXCHANGE, authority=True),
    Extension("XSHADOW*", "Exchange", HIDDEN, _EXCHANGE, verbs=("XQDISCARD",), parameters=("XSHADOW",),
              authority=True),
    Extension("XSYSPROBE", "Exchange", HIDDEN, _EXCHANGE, parameters=("XSYSPROBEID",), authority=True),
    Extension("XLONGADDR", "Exchange", TRANSPARENT, "longer addresses", lengthens=True),
    Extension("XMSGID", "Exchange", TRANSPARENT, "a parameter", parameters=("XMSGID",), lengthens=True),
    # --- What stands in EHLO replies and is no extension ---
    Extension("EHLO", "CommuniGate Pro", TRANSPARENT, "means nothing"),
    Extension("MAILSTORE", "MailStore", TRANSPARENT, "means nothing to others"),
    Extension("OK", "Windows, Trend Micro", TRANSPARENT, "means nothing"),
    Extension("X-NOTHING", "MagicSpam", TRANSPARENT, "means nothing"),
    Extension("XXX*", "Cisco PIX and ASA", TRANSPARENT, "a keyword that a firewall has struck out"),
)  # fmt: skip


def _named(extension: Extension) -> bytes:
    return extension.keyword.rstrip("*").encode("ascii")


_EXACT: Final = {_named(extension): extension for extension in TABLE if not extension.wild}
_WILD: Final = {_named(extension): extension for extension in TABLE if extension.wild}
_BEGINNINGS: Final = tuple(_WILD)
_VERBS: Final = {verb.encode("ascii"): row for row in TABLE for verb in row.verbs}
_PARAMETERS: Final = {name.encode("ascii"): row for row in TABLE for name in row.parameters}

NOTHING: Final[frozenset[bytes]] = frozenset()


def known(keyword: bytes) -> Extension | None:
    """The row of this EHLO keyword (in upper case)."""
    found = _EXACT.get(keyword)
    if found is None and keyword.startswith(_BEGINNINGS):
        found = next(row for start, row in _WILD.items() if keyword.startswith(start))
    return found


def is_hidden(keyword: bytes, withheld: frozenset[bytes] = NOTHING) -> bool:
    """Whether this EHLO keyword is kept from clients; `withheld` are those that do not work here and now."""
    return _hides(known(keyword), withheld)


def is_authority(keyword: bytes) -> bool:
    """Whether by this keyword, or command, a trusted address speaks for others."""
    found = known(keyword)
    return found is not None and found.authority


def lengthens(keyword: bytes) -> bool:
    """Whether a backend that offers this reads MAIL and RCPT lines beyond 512 octets."""
    found = known(keyword)
    return found is not None and found.lengthens


def refuses_command(verb: bytes, withheld: frozenset[bytes] = NOTHING) -> bool:
    """Whether this command (in upper case) belongs to an extension that is hidden."""
    return _hides(_VERBS.get(verb) or known(verb), withheld)


def refused_parameter(argument: bytes, withheld: frozenset[bytes] = NOTHING) -> bytes | None:
    """The first parameter of a hidden extension in the argument of MAIL or RCPT; None if there is none.

    Every word is looked at, for backends do not agree on where an address ends: `<a@b>PRDR` holds the parameter for
    some.  A local part that holds such a word, quoted and between blanks, is refused with them.
    """
    for word in argument.upper().replace(b">", b" ").split():
        name = word.partition(b"=")[0]
        if _hides(_PARAMETERS.get(name), withheld):
            return name
    return None


def _hides(row: Extension | None, withheld: frozenset[bytes]) -> bool:
    return row is not None and (row.treatment is HIDDEN or (bool(withheld) and _named(row) in withheld))
