"""What a client must be told and a backend must hear, written from the protocol reference alone.

Nothing here calls a dialect: an oracle that shares code with what it judges finds nothing.  It knows
what the recorded conversations need and no more (no literals, no BDAT, no pipelining).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.dialects.base import Policy

HOST = b"gw.example.org"
CLOSED, OPEN, SECURE, LOGIN = "closed", "open", "secure", "login"
"""How far a session is: before TLS without and with authentication, inside TLS, at the login's success."""

AUTHORITY = re.findall(
    r"\S+",
    "XCLIENT XFORWARD XRCPTFORWARD XPROXY XPROXYFROM XPROXYTO XOORG XSESSIONPARAMS X-ANONYMOUSTLS XEXCH50"
    " XSHADOW XSHADOWREQUEST X-LINK2STATE",
)
NEVER = [
    *AUTHORITY, "PIPECONNECT", "X_PIPE_CONNECT", "ATRN", "TURN", "XTRN", "REQUIRETLS", "STARTTLS", "PRDR", "CHECKPOINT",
    "XRDST", "X-EXCHANGEAUTH",
]  # fmt: skip
PASSWORDS = {"PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "OAUTHBEARER", "XOAUTH2"}


@dataclass(frozen=True)
class Outcome:
    """What follows from one step; with `over` the session ends with that reason."""

    told: bytes = b""
    heard: bytes = b""
    over: str = ""
    switched: bool = False
    unfinished: bool = False
    """The recording breaks off within the reply: the server closes there."""
    afresh: bool = False
    """The server is left and dialled again; what it hears then first is `again`."""
    again: bytes = b""


def wire(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\r\n" for line in lines)


def usable(offered: Sequence[str]) -> Callable[[str], bool]:
    """Which mechanisms of a list may be shown: no EXTERNAL, no -PLUS, nor its base beside another password."""
    names = {name.upper() for name in offered}
    bases = {name[:-5] for name in names if name.endswith("-PLUS")}
    others = names & (PASSWORDS - bases)
    return lambda name: (
        not (name.upper() == "EXTERNAL" or name.upper().endswith("-PLUS") or (others and name.upper() in bases))
    )


# --- SMTP --------------------------------------------------------------------------------------------


class SMTPOracle:
    def __init__(self, policy: Policy, secured: bool) -> None:
        self.policy = policy
        self.secured = secured
        self.spliced = False
        self.dialogue = self.data = False
        self.must_greet = False
        self.refused = False
        self.verb = ""
        self.name = b""
        self._first: list[bytes] = []  # the refusal of EHLO while HELO is tried
        self._introduced = ""  # the command by which the server knows the client
        self._said = b""  # the last line that the server heard
        self._partial: list[bytes] = []

    @property
    def stage(self) -> str:
        if self.secured:
            return SECURE
        return OPEN if self.policy is Policy.OPTIONAL else CLOSED

    def unavailable(self) -> bytes:
        return b"421 %s Service not available, closing transmission channel\r\n" % HOST

    def switch(self) -> None:
        self.secured = self.must_greet = True

    def greeting(self, lines: Sequence[bytes]) -> Outcome:
        count, fault = self._whole(lines)
        code = lines[0][:3]
        if fault or count < len(lines) or not (code == b"220" or code[:1] in b"45"):
            return Outcome(self.unavailable(), over="backend-bad-greeting")
        self.refused = code != b"220"
        return Outcome(wire(lines), over="backend-refused" if code == b"421" else "")

    def command(self, line: bytes) -> Outcome:
        if self.dialogue:
            return Outcome(heard=line + b"\r\n")
        words = line.decode("latin-1").split()
        self.verb = words[0].upper() if words else ""
        bare = len(words) == 1
        if self.refused and self.verb != "QUIT":
            return Outcome(b"503 5.5.1 Only QUIT is allowed now\r\n")
        if self.verb in ("GET", "POST", "CONNECT", "PUT", "HEAD", "OPTIONS"):
            return Outcome(b"421 4.7.0 Protocol error\r\n", over="http-client")
        if self.verb in [*AUTHORITY, "ATRN", "TURN", "XTRN"]:
            return Outcome(b"502 5.5.1 Command not implemented\r\n")
        if self.verb == "STARTTLS":
            if not bare:
                return Outcome(b"501 5.5.4 Syntax: STARTTLS takes no parameters\r\n")
            if self.secured:
                return Outcome(b"503 5.5.1 TLS already active\r\n")
            return Outcome(b"220 2.0.0 Ready to start TLS\r\n", switched=True)
        if self.stage == CLOSED:
            closed = self.policy is Policy.REQUIRED
            if closed and self.verb == "NOOP":
                return Outcome(b"250 2.0.0 OK\r\n")
            if closed and not words:
                return Outcome(b"500 5.5.2 Syntax error\r\n")
            if (closed and self.verb not in ("EHLO", "QUIT")) or self.verb == "AUTH":
                return Outcome(b"530 5.7.0 Must issue a STARTTLS command first\r\n")
        if self.must_greet and self.verb not in ("EHLO", "HELO", "NOOP", "RSET", "QUIT"):
            return Outcome(b"503 5.5.1 Send EHLO/HELO first\r\n")
        if self.verb == "EHLO":
            self.name = line[4:].strip(b" ")
        self._said = line + b"\r\n"
        return Outcome(heard=self._said)

    def reply(self, lines: Sequence[bytes]) -> Outcome:
        count, fault = self._whole(lines)
        edited = self.verb == "EHLO"
        if fault:
            # Words of ours behind a part of a reply would seem to belong to it.
            told = wire(lines[:count]) if count and not edited else b"421 4.3.0 %s Internal error\r\n" % HOST
            return Outcome(told, over="backend-protocol-error")
        if not count:
            self._partial = list(lines)
            return Outcome(unfinished=True)
        code = lines[0][:3]
        extra = lines[count:]
        asked = "HELO" if self._first else self.verb
        again = asked in ("EHLO", "HELO") and self._introduced and self.must_greet
        if again and (code == b"503" or (code in (b"500", b"502") and asked == self._introduced)):
            # RFC 3207 4.2 makes the client say it again; some servers take it once in a connection.
            self._introduced = ""
            return Outcome(heard=b"QUIT\r\n", afresh=True, again=self._said)
        if asked in ("EHLO", "HELO") and code == b"250":
            self._introduced = asked
        if self._first:
            refusal, self._first = self._first, []
            lines = [b"250 " + lines[0][4:]] if code == b"250" else refusal
            told = wire(self._edit(lines) if code == b"250" else lines)
        elif edited and code in (b"500", b"501", b"502", b"504", b"550") and self.name:
            self._first = list(lines[:count])
            self._said = b"HELO " + self.name + b"\r\n"
            return Outcome(heard=self._said)
        elif edited and code == b"250":
            told = wire(self._edit(lines[:count]))
        else:
            told = wire(lines[:count])
        if self.verb in ("EHLO", "HELO") and (code == b"250" or lines[0][:3] == b"250"):
            self.must_greet = False
        self.dialogue = code == b"334" and (self.verb == "AUTH" or self.dialogue)
        self.data = self.verb == "DATA" and code == b"354"
        if self.verb == "QUIT":
            return Outcome(told, over="quit")
        if code == b"421":
            return Outcome(told, over="backend-closed")
        if extra:
            # Nothing but 421 may come unasked.
            return Outcome(told + b"421 4.3.0 %s Internal error\r\n" % HOST, over="backend-protocol-error")
        return Outcome(told)

    def lost(self) -> Outcome:
        told = b"421 4.4.2 %s Connection to mail server lost\r\n" % HOST
        if self.verb == "QUIT":
            told = b"221 2.0.0 %s closing connection\r\n" % HOST
        return Outcome(told if self.verb == "EHLO" or not self._partial else wire(self._partial), over="backend-lost")

    def unasked(self, lines: Sequence[bytes]) -> Outcome:
        count, _ = self._whole(lines)
        assert count == len(lines), f"not recorded until now: {lines!r}"
        if lines[0][:3] == b"421":
            return Outcome(wire(lines), over="backend-closed")
        error = b"" if self.refused else b"421 4.3.0 %s Internal error\r\n" % HOST
        return Outcome(error, over="backend-protocol-error")

    def _whole(self, lines: Sequence[bytes]) -> tuple[int, bool]:
        """How many lines the first reply has (0: it goes on), and whether it breaks the rules before its end;
        then the number is that of the lines before the fault."""
        for index, line in enumerate(lines):
            if not re.match(rb"[2-5][0-9][0-9]([ -].*)?\Z", line, re.DOTALL) or line[:3] != lines[0][:3]:
                return index, True
            if line[3:4] != b"-":
                return index + 1, False
        return 0, False

    def _edit(self, lines: Sequence[bytes]) -> list[bytes]:
        texts = [line[4:].decode("latin-1") for line in lines]
        words = [re.split("[ =]", text)[0].upper() for text in texts]
        offers = [re.split("[ =]", text.strip(" "))[1:] for text in texts]
        logins = ("AUTH", "X-EXPS")
        shown = usable(
            [name for word, offer in zip(words[1:], offers[1:], strict=True) if word in logins for name in offer]
        )
        kept = texts[:1]
        for text, word, offer in list(zip(texts, words, offers, strict=True))[1:]:
            if word in NEVER or (word in logins and self.stage == CLOSED):
                continue
            if word in logins and not [name for name in offer if shown(name)]:
                continue
            if word in logins and not all(shown(name) for name in offer):
                text = text[: len(word) + 1] + " ".join(name for name in offer if shown(name))
            kept.append(text)
        if not self.secured:
            kept.append("STARTTLS")
        raw = [text.encode("latin-1") for text in kept]
        return [*(b"250-" + text for text in raw[:-1]), b"250 " + raw[-1]]


# --- IMAP --------------------------------------------------------------------------------------------


class IMAPOracle:
    def __init__(self, policy: Policy, secured: bool) -> None:
        self.policy = policy
        self.secured = secured
        self.spliced = self.dialogue = self.data = False
        self.tag = b""
        self.verb = ""
        self._begun = self._bye = False

    @property
    def stage(self) -> str:
        if self.secured:
            return SECURE
        return OPEN if self.policy is Policy.OPTIONAL else CLOSED

    def unavailable(self) -> bytes:
        return b"* BYE [UNAVAILABLE] Service temporarily unavailable\r\n"

    def switch(self) -> None:
        self.secured = True

    def greeting(self, lines: Sequence[bytes]) -> Outcome:
        match = re.match(rb"\* (OK|BYE|PREAUTH)( |\Z)", lines[0], re.IGNORECASE)
        if not match:
            return Outcome(self.unavailable(), over="backend-bad-greeting")
        kind = match[1].upper()
        if kind == b"PREAUTH":
            return Outcome(self.unavailable(), over="backend-preauth")
        return Outcome(
            wire([self._edit(line, self.stage) for line in lines]), over="backend-refused" if kind == b"BYE" else ""
        )

    def command(self, line: bytes) -> Outcome:
        if self.dialogue:
            return Outcome(heard=line + b"\r\n")
        words = line.decode("latin-1").split(" ")
        if re.match(r"(GET|POST|HEAD) /", line.decode("latin-1")):
            return Outcome(b"* BYE Invalid protocol\r\n", over="http-client")
        if len(words) < 2:
            return Outcome(words[0].encode() + b" BAD Missing command\r\n" if words[0] else b"* BAD Invalid tag\r\n")
        self.tag, self.verb = words[0].encode(), words[1].upper()
        if self.verb == "STARTTLS":
            if self.secured:  # RFC 9051 6.2.1: whatever stands behind it
                return Outcome(self.tag + b" BAD TLS is already active\r\n")
            if any(words[2:]):
                return Outcome(self.tag + b" BAD STARTTLS takes no arguments\r\n")
            return Outcome(self.tag + b" OK Begin TLS negotiation now\r\n", switched=True)
        if not self.secured and self.verb == "ID":
            return Outcome(b"* ID NIL\r\n" + self.tag + b" OK ID completed\r\n")
        if self.stage == CLOSED:
            required = self.policy is Policy.REQUIRED
            if required and self.verb == "NOOP":
                return Outcome(self.tag + b" OK NOOP completed\r\n")
            if self.verb in ("LOGIN", "AUTHENTICATE") or (required and self.verb not in ("CAPABILITY", "LOGOUT")):
                return Outcome(self.tag + b" NO [PRIVACYREQUIRED] Must issue a STARTTLS command first\r\n")
        return Outcome(heard=line + b"\r\n")

    def reply(self, lines: Sequence[bytes]) -> Outcome:
        told: list[bytes] = []
        over = ""
        self.dialogue = False
        unfinished = True
        self._begun = bool(lines)
        for line in lines:
            if self.spliced:
                told.append(line)
            elif line.startswith(b"* "):
                # RFC 3501 7.1.3: a server that cannot read a command does not know its tag.
                unfinished = unfinished and line[:5].upper() != b"* BAD"
                told.append(self._untagged(line))
            elif line.startswith(b"+") and line == lines[-1]:
                self.dialogue = True
                unfinished = False
                told.append(line)
            else:
                assert line.startswith(self.tag + b" "), f"not recorded until now: {line!r}"
                verdict = line.split(b" ")[1].upper()
                unfinished = False
                if self.verb in ("LOGIN", "AUTHENTICATE") and verdict == b"OK":
                    self.spliced = True
                    told.append(self._edit(line, LOGIN))
                else:
                    told.append(self._edit(line, self.stage))
                    over = "quit" if self.verb == "LOGOUT" and verdict in (b"OK", b"BYE") else ""
        return Outcome(wire(told), over=over, unfinished=unfinished)

    def lost(self) -> Outcome:
        bye = b"" if self._bye else b"* BYE logging out\r\n"
        if self.verb == "LOGOUT":
            return Outcome(bye + self.tag + b" OK LOGOUT completed\r\n", over="quit")
        # Words of ours behind a part of a reply would seem to belong to it.
        text = b"[UNAVAILABLE] Connection to mail server lost\r\n"
        told = b"" if self._begun else self.tag + b" NO " + text + b"* BYE " + text
        return Outcome(told, over="backend-lost")

    def unasked(self, lines: Sequence[bytes]) -> Outcome:
        assert all(line.startswith(b"* ") for line in lines), f"not recorded until now: {lines!r}"
        return Outcome(wire([self._untagged(line) for line in lines]))

    def _untagged(self, line: bytes) -> bytes:
        self._bye = self._bye or line[:5].upper() == b"* BYE"
        return self._edit(line, self.stage)

    def _edit(self, line: bytes, stage: str) -> bytes:
        text = line.decode("latin-1")
        if match := re.match(r"(\* CAPABILITY )(.*)()\Z", text, re.IGNORECASE):
            pass
        elif not (match := re.match(r"(.*?\[CAPABILITY )([^\]]*)(\].*)\Z", text, re.IGNORECASE)):
            return line
        tokens = match[2].split(" ")
        shown = usable([token[5:] for token in tokens if token.upper().startswith("AUTH=")])
        kept = []
        for token in tokens:
            name = token.upper()
            gone = name == "STARTTLS"
            gone |= name == "LOGINDISABLED" and stage in (CLOSED, LOGIN)
            if name.startswith("AUTH="):
                gone |= stage == CLOSED or (stage in (OPEN, SECURE) and not shown(token[5:]))
            if not gone:
                kept.append(token)
        kept += {CLOSED: ["STARTTLS", "LOGINDISABLED"], OPEN: ["STARTTLS"]}.get(stage, [])
        return (match[1] + " ".join(kept) + match[3]).encode("latin-1")


# --- POP3 --------------------------------------------------------------------------------------------


class POP3Oracle:
    def __init__(self, policy: Policy, secured: bool) -> None:
        self.policy = policy
        self.secured = secured
        self.spliced = self.dialogue = self.data = False
        self.user = False
        self.verb = ""
        self.bare = True
        self.asked = False  # since TLS
        self.given = self.cancelled = False
        """In a dialogue the client has said something that could prove who it is, or taken it back."""
        self._partial: list[bytes] | None = None

    @property
    def stage(self) -> str:
        if self.secured:
            return SECURE
        return OPEN if self.policy is Policy.OPTIONAL else CLOSED

    def unavailable(self) -> bytes:
        return b"-ERR [SYS/TEMP] Service temporarily unavailable\r\n"

    def switch(self) -> None:
        self.secured = True
        self.asked = False

    def greeting(self, lines: Sequence[bytes]) -> Outcome:
        if lines[0].startswith(b"-"):
            return Outcome(wire(lines), over="backend-refused")
        if not lines[0].upper().startswith(b"+OK"):
            return Outcome(self.unavailable(), over="backend-bad-greeting")
        return Outcome(wire([lines[0].replace(b"+OK [XCLIENT] ", b"+OK ", 1), *lines[1:]]))

    def command(self, line: bytes) -> Outcome:
        if self.dialogue:
            self._say(line)
            return Outcome(heard=line + b"\r\n")
        words = line.decode("latin-1").split()
        self.verb, self.bare = (words[0].upper() if words else ""), len(words) < 2
        self.given = self.cancelled = False
        if not words:
            return Outcome(b"-ERR Unknown command\r\n")
        if self.verb in ("XCLIENT", "XOIP"):
            return Outcome(b"-ERR Unknown command\r\n")
        if self.verb == "STLS":
            if self.secured:
                return Outcome(b"-ERR Command not permitted when TLS active\r\n")
            if not self.bare:
                return Outcome(b"-ERR STLS takes no arguments\r\n")
            if self.user:
                return Outcome(b"-ERR STLS not permitted in this state\r\n")
            return Outcome(b"+OK Begin TLS negotiation now\r\n", switched=True)
        if self.stage == CLOSED:
            logins = ("USER", "PASS", "APOP", "AUTH")
            if self.verb in logins or (self.policy is Policy.REQUIRED and self.verb not in ("CAPA", "QUIT")):
                return Outcome(b"-ERR [SYS/PERM] Must issue a STLS command first\r\n")
        self.asked = True
        if self.verb == "AUTH" and len(words) > 2:
            self._say(words[2].encode("latin-1"))
        return Outcome(heard=line + b"\r\n")

    def _say(self, response: bytes) -> None:
        self.cancelled = response == b"*"
        self.given = self.given or response not in (b"", b"=", b"*")

    def reply(self, lines: Sequence[bytes]) -> Outcome:
        if self.spliced:
            return Outcome(wire(lines))
        if not lines:
            self._partial = None
            return Outcome(unfinished=True)
        first = lines[0]
        positive = first.upper().startswith(b"+OK")
        listing = positive and (self.verb == "CAPA" or (self.verb == "AUTH" and self.bare))
        self.dialogue = False
        assert first.startswith((b"+", b"-")), f"not recorded until now: {first!r}"
        if self.verb == "CAPA" and not self.secured and not positive:
            return Outcome(b"+OK Capability list follows\r\nSTLS\r\n.\r\n")
        if listing and lines[-1] != b".":
            self._partial = list(lines)
            return Outcome(first + b"\r\n", unfinished=True)
        if listing:
            return Outcome(wire(self._capabilities(lines) if self.verb == "CAPA" else self._mechanisms(lines)))
        if self.verb == "QUIT":
            return Outcome(wire(lines), over="quit")
        if self.verb in ("USER", "PASS"):
            self.user = self.verb == "USER" and positive
        if self.verb in ("PASS", "APOP") or (self.verb == "AUTH" and self.given and not self.cancelled):
            self.spliced = positive
        # Before the client has said anything, +OK is the go-ahead (Exchange 2003).
        ahead = not (self.given or self.cancelled) if positive else first.startswith(b"+")
        self.dialogue = self.verb == "AUTH" and ahead
        return Outcome(wire(lines))

    def lost(self) -> Outcome:
        if self._partial is not None:
            # Words of ours would seem to be a part of the list.
            edit = self._capabilities if self.verb == "CAPA" else self._mechanisms
            shown = edit([*self._partial, b"."])[1:-1]
            return Outcome(wire([line for line in shown if line != b"STLS"]), over="backend-lost")
        if self.verb == "QUIT":
            return Outcome(b"+OK\r\n", over="quit")
        return Outcome(b"-ERR [SYS/TEMP] Connection to mail server lost\r\n", over="backend-lost")

    def unasked(self, lines: Sequence[bytes]) -> Outcome:
        if not (self.asked or lines[0].startswith(b"-")):
            return Outcome(b"", over="backend-protocol-error")
        if self.dialogue and lines[0].startswith(b"-"):
            self.dialogue = False
        return Outcome(wire(lines))

    def _mechanisms(self, lines: Sequence[bytes]) -> list[bytes]:
        shown = usable([line.decode() for line in lines[1:-1]])
        return [lines[0], *(line for line in lines[1:-1] if shown(line.decode())), lines[-1]]

    def _capabilities(self, lines: Sequence[bytes]) -> list[bytes]:
        kept = [lines[0]]
        for line in lines[1:-1]:
            words = line.decode("latin-1").split()
            word = words[0].upper()
            offered = words[1:]
            shown = usable(offered)
            if word in ("STLS", "XCLIENT") or (self.stage == CLOSED and word in ("USER", "SASL")):
                continue
            if word == "SASL" and not any(map(shown, offered)):
                continue
            if word == "SASL" and not all(map(shown, offered)):
                line = " ".join([words[0], *filter(shown, offered)]).encode("latin-1")
            kept.append(line)
        if not self.secured:
            kept.append(b"STLS")
        return [*kept, lines[-1]]


ORACLES: dict[str, Callable[[Policy, bool], SMTPOracle | IMAPOracle | POP3Oracle]] = {
    "smtp": SMTPOracle,
    "imap": IMAPOracle,
    "pop3": POP3Oracle,
}
