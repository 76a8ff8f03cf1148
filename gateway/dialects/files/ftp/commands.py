"""FTP with TLS (RFC 4217), inspected to the end: data connections may be opened at any time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ....protocol.vocabulary import (
    Close,
    Heard,
    Line,
    Note,
    Patience,
    Proven,
    Script,
    Send,
    Side,
    StartTLS,
    Stopped,
    Trouble,
    Unclean,
)
from ... import users
from ...base import Dialect, Free, Policy, Question, port_range
from ...conversation import BACKEND, BOTH, CLIENT, Stage, converse, foreign, login_note
from ...masking import Verbs
from ...probing import Attempt, Probing
from ...replies import Reply
from .data import TRANSFER, Data
from .words import (
    LINES,
    MECHANISMS,
    REFUSED,
    REJECTS,
    TRANSFERS,
    edit_features,
    ipv4_or_nothing,
    is_last,
    listed,
    of_ftp,
    split,
    without_telnet,
)

FIRST: Final = b"530 Must issue AUTH TLS first"
ALWAYS_OPEN: Final = frozenset({
    b"ADAT", b"AUTH", b"CCC", b"CLNT", b"CONF", b"ENC", b"FEAT", b"HOST", b"MIC", b"NOOP", b"OPTS", b"PBSZ", b"PROT",
    b"QUIT", b"SYST",
})  # fmt: skip
"""Before TLS, where that is required."""
HARMLESS: Final = frozenset({b"AUTH", b"CCC", b"FEAT", b"NOOP", b"PBSZ", b"PROT", b"QUIT", b"SYST"})
"""The backend remembers none of these."""
LOGINS: Final = frozenset({b"ACCT", b"PASS", b"USER"})
SHOWN: Final = Verbs(
    whole=frozenset({
        b"ABOR", b"ALLO", b"AUTH", b"CCC", b"CDUP", b"CLNT", b"EPRT", b"EPSV", b"FEAT", b"HOST", b"LANG", b"MODE",
        b"NOOP", b"OPTS", b"PASV", b"PBSZ", b"PORT", b"PRET", b"PROT", b"PWD", b"QUIT", b"REIN", b"REST", b"STRU",
        b"SYST", b"TYPE", b"XPWD",
    }),
    first=frozenset(),
    alone=frozenset({
        b"ACCT", b"APPE", b"CWD", b"DELE", b"HELP", b"LIST", b"MDTM", b"MFMT", b"MKD", b"MLSD", b"MLST", b"NLST",
        b"PASS", b"RETR", b"RMD", b"RNFR", b"RNTO", b"SITE", b"SIZE", b"STAT", b"STOR", b"STOU", b"USER", b"XCUP",
        b"XCWD", b"XMKD", b"XRMD",
    }),
)  # fmt: skip


class FTP(Data):
    """One session's state; what is not in an attribute here is the generator's own place."""

    def talk(self) -> Script:
        try:
            while True:
                if self._owed:
                    yield from self._meanwhile()
                    continue
                held, self._held = self._held, None
                yield from self._heard((yield from self.hear(BOTH, Patience.COMMAND, LINES)) if held is None else held)
        except Trouble as trouble:
            if not isinstance(trouble, Stopped):
                yield from self._drop()
            raise

    def _heard(self, heard: Heard) -> Script:
        match heard:
            case Line(side=Side.BACKEND, text=text):
                yield from self._unasked(text)
            case Line(text=text):
                yield from self._command(without_telnet(text))
            case Unclean():
                yield from self._refuse(b"501 Invalid characters")
            case _:
                yield Note("client-line-too-long")
                yield from self._refuse(b"500 Line too long")

    def _command(self, line: bytes) -> Script:
        verb, argument = split(line)
        if not verb:
            yield from self._refuse(b"500 Syntax error")
        elif self._waits_for_tls(verb):
            yield from self._refuse((yield from self.first(FIRST)))
        elif verb in REFUSED:
            yield from self._refuse(b"502 Command not implemented")
        else:
            self._fresh = self._fresh and verb in HARMLESS
            yield from COMMANDS.get(verb, FTP._other)(self, verb, line, argument)

    def _waits_for_tls(self, verb: bytes) -> bool:
        if self.stage is not Stage.CLOSED:
            return False
        return verb in LOGINS if self.terms.policy is Policy.AUTH_ONLY else verb not in ALWAYS_OPEN

    # --- commands ---

    def _auth(self, verb: bytes, line: bytes, argument: bytes) -> Script:
        if self.secured is not None:
            yield from self._refuse(b"503 TLS already active")
        elif not argument:
            yield from self._refuse(b"501 Syntax: AUTH mechanism")
        elif argument.upper() not in MECHANISMS:
            yield from self._refuse(b"504 Security mechanism not understood")
        else:
            yield from self._drop()
            self.secured = yield StartTLS(CLIENT, b"234 Proceed with negotiation\r\n")
            self.bad = 0
            if not self._fresh:
                yield from self._forget()

    def _forget(self) -> Script:
        """What was said in the clear does not count inside (RFC 4217 4): a fresh connection knows none of it."""
        yield Send(BACKEND, b"QUIT\r\n")
        self.reached, self._fresh = False, True
        self._claimed = b""
        self._extended_only = False
        yield from self._reach()

    def _feat(self, verb: bytes, line: bytes, argument: bytes) -> Script:
        if not self.reached and self.secured is None:
            reply = Reply((b"502 Command not implemented",))
        else:
            reply = yield from self._ask(line)
        added = {"secured": self.secured is not None, "active": self.terms.options.get("active") == "yes"}
        if reply.code == b"211" and len(reply.lines) > 1:
            first, *features, last = reply.lines
            reply = Reply((first, *edit_features(features, **added), last))
        elif reply.code in (b"211", b"500", b"502"):
            reply = Reply((b"211-Features:", *edit_features((), **added), b"211 End"))
        yield from self._pass_on(reply)

    def _quit(self, verb: bytes, line: bytes, argument: bytes) -> Script:
        if self.reached:
            reply = yield from self.left(self._ask(line), Reply((b"221 Goodbye",)))
            yield Send(CLIENT, reply.octets)
            if reply.code != b"221":
                yield from self._settle(reply.code)
                return
        else:
            yield Send(CLIENT, b"221 Goodbye\r\n")
        yield Close("quit")

    def _other(self, verb: bytes, line: bytes, argument: bytes) -> Script:
        self._outstanding = True
        yield from self._reach()
        yield Send(BACKEND, line + b"\r\n")
        first = yield from self._relayed()
        while first[:1] == b"1":
            first = yield from self._relayed()
        self._outstanding = False
        yield from self._settle(first[:3])

    def _abort(self, verb: bytes, line: bytes, argument: bytes) -> Script:
        """Without a transfer: a port that the backend gives up may be another session's next."""
        yield from self._drop()
        yield from self._other(verb, line, argument)

    # --- logins ---

    def _login(self, verb: bytes, line: bytes, argument: bytes) -> Script:
        """USER, PASS and ACCT (RFC 959 5.4): 3yz wants more of it."""
        if not (yield from self.may_log_in()):
            yield from self._refuse(b"430 Too many failed logins, try again later")
            return
        if verb == b"USER":
            self._claimed = users.shortened(argument)
        reply = yield from self._ask(line)
        if reply.code in (b"230", b"232"):
            yield login_note(b"USER", "ok", self._claimed)
            yield Proven()
            yield from self._pass_on(reply)
        elif reply.code[:1] == b"3":
            yield Send(CLIENT, reply.octets)
        elif reply.code == b"202":  # Pure-FTPd says so to every ACCT, also before a login
            yield from self._pass_on(reply)
        else:
            guessed = reply.code in REJECTS
            yield from self.not_accepted(b"USER", self._claimed, self._pass_on(reply), guessed=guessed)

    def _ended(self, verb: bytes, code: bytes) -> Script:
        yield from super()._ended(verb, code)
        if verb == b"QUIT" and code == b"221":
            yield Close("quit")


Command = Callable[[FTP, bytes, bytes, bytes], Script]

COMMANDS: Final[Mapping[bytes, Command]] = {
    b"AUTH": FTP._auth,
    b"PBSZ": FTP._pbsz,
    b"PROT": FTP._prot,
    b"CCC": FTP._ccc,
    b"FEAT": FTP._feat,
    b"ABOR": FTP._abort,
    b"QUIT": FTP._quit,
    b"PASV": FTP._passive,
    b"EPSV": FTP._passive,
    b"PORT": FTP._active,
    b"EPRT": FTP._active,
    **dict.fromkeys(LOGINS, FTP._login),
    **dict.fromkeys(TRANSFERS, FTP._transfer),
}
"""All other commands are the backend's.  Plain functions: bound methods would create a reference cycle."""


def _complete(command: bytes, heard: bytes) -> bool:
    lines = heard.splitlines()
    return bool(lines) and is_last(lines[0], lines[-1]) and (len(lines) > 1 or lines[0][3:4] != b"-")


DIALECT = Dialect(
    name="ftp",
    script=lambda terms: converse(FTP(terms)),
    unavailable=FTP.unavailable,
    busy=FTP.busy,
    patience={
        # pure-ftpd closes after 15 minutes, and is to close first.
        Patience.COMMAND: 960.0,
        Patience.REPLY: 330.0,
        TRANSFER: 330.0,
        Patience.DATA: 300.0,
        Patience.SPLICE: 960.0,
    },
    policies={},
    foreign=foreign("http-client"),
    options={
        "passive_ports": Free("50000-50999", port_range),
        "passive_address": Free("", ipv4_or_nothing),
        "active": ("no", "yes"),
        "protection": ("required", "optional"),
        "data_session_reuse": ("no", "required"),
        "strict_close": ("yes", "no"),
        "log_files": ("no", "yes"),
    },
    alpn=(b"ftp",),
    channels=True,
    question=Question(lambda hostname: b"FEAT", b"QUIT", listed, of_ftp, tries=(b"USER starttls-gateway-check",)),
    shown=SHOWN,
    probing=Probing(
        port=21,
        implicit=frozenset({990}),
        starttls=b"AUTH TLS",
        injected=b"NOOP",
        complete=_complete,
        agrees=lambda reply: reply.startswith((b"220", b"234")),
        attempts=(Attempt(b"USER starttls-gateway-probe", lambda reply: reply.startswith((b"331", b"230"))),),
    ),
)
