"""What real clients really send gets them where an honest server would have got them.

The client's octets are replayed, segment by segment, against the gateway with a plaintext server behind
it; each thing that the client waited for must be told to it.  In every scenario:

* nothing raises, the client is told whole lines that end with CRLF, and after the go-ahead for TLS (or
  a handshake that failed) nothing in the clear;
* under `required` the backend hears, before TLS, only capability queries, HELO for EHLO, and goodbyes;
  under `auth-only` no login;
* each message that the client finished arrives once, whole, with CRLF at its line ends, behind one
  Received: field; none that it did not finish;
* a login that the client was told of happened, is spliced (IMAP, POP3), and no other is;
* a QUIT or LOGOUT arrives, and a client that just goes away leaves no open session, and a backend that was
  told QUIT or LOGOUT (unauthenticated, at a boundary) or was dropped.

What each scenario adds is in SCENARIOS.  Where the recorded server refused what the gateway grants (TLS,
EHLO, CAPA), the grant is what is asserted, and the client goes on as the same client did in its recording
with a server that granted it.

Where a recording lacks a reply, it does not tell whether a login succeeded, and nothing is asserted of that.
What stands in angle brackets is an event and no line of the client's: it is left out, with what the client
waited for then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from gateway.dialects import DIALECTS
from gateway.dialects.base import Policy
from gateway.protocol.vocabulary import Side
from tests.pure.honest import SERVERS, SMTPServer
from tests.pure.playbook import SINGLE, WHOLE, terms
from tests.pure.rig import Happening, Rig

Client = Mapping[str, Any]
Step = Mapping[str, Any]
Plan = Callable[[Client, Sequence[Client]], list[Step] | None]
"""The steps that make sense with the gateway, or None where the scenario asks for nothing more."""

STARTTLS = re.compile(rb"(?:\S+ )?STARTTLS\r\n|STLS\r\n", re.IGNORECASE)
HELLO = re.compile(rb"EHLO .*\r\n|CAPA\r\n|\S+ CAPABILITY(?:\r\n)?|\r\n", re.IGNORECASE)
GRANTED = {"smtp": "^220", "imap": r"^\S+ OK", "pop3": r"^\+OK"}
HARMLESS = {
    "smtp": re.compile(rb"(?:EHLO|HELO|QUIT)\b", re.IGNORECASE),
    "imap": re.compile(rb"\S+ (?:CAPABILITY|LOGOUT)\Z", re.IGNORECASE),
    "pop3": re.compile(rb"(?:CAPA|QUIT)\Z", re.IGNORECASE),
}
LOGIN = re.compile(rb"(?:\S+ )?(?:AUTH|AUTHENTICATE|LOGIN|USER|PASS|APOP)\b", re.IGNORECASE)
SENT = re.compile(rb"(?:\S+ (?:LOGIN|AUTHENTICATE)|PASS|APOP|AUTH) +\S", re.IGNORECASE)
"""What is a login, or the end of one."""
DATA = re.compile(rb"(?:\A|\n)DATA\r\n\Z", re.IGNORECASE)
EVENT = re.compile(r"<[^<>\r\n]*>\Z")
LOST: Step = {"close": "abrupt", "tcp": "fin"}


def octets(step: Step) -> bytes:
    escaped: str = step["send"]
    return escaped.encode("latin-1").decode("unicode_escape").encode("latin-1")


def without_events(steps: Sequence[Step]) -> list[Step]:
    kept: list[Step] = []
    message = event = False
    for step in steps:
        if "send" in step:
            event = not message and EVENT.match(step["send"]) is not None
        elif "expect" in step:
            message = step["expect"] == "^354"
        else:
            event = False
        if not event:
            kept.append(step)
    return kept


def groups(steps: Sequence[Step]) -> Iterator[tuple[list[bytes], list[str]]]:
    """What the client said in one go, as lines, and what it waited for then."""
    said, waited = b"", list[str]()
    for step in steps:
        if "send" in step:
            if waited:
                yield said.split(b"\r\n")[:-1], waited
                said, waited = b"", []
            said += octets(step)
        elif "expect" in step:
            waited.append(step["expect"])
    yield said.split(b"\r\n")[:-1], waited


# --- plans: from what was recorded to what is played -------------------------------------------------


def recorded(client: Client, others: Sequence[Client]) -> list[Step] | None:
    """As it was."""
    return list(client["steps"])


def twin(client: Client, others: Sequence[Client]) -> list[Step]:
    """The same client where STARTTLS was offered and worked, from STARTTLS on; empty where none is recorded."""
    for other in others:
        same = all(other[key] == client[key] for key in ("client", "version", "protocol"))
        if same and other["scenario"] == "required" and other["mode"] == "starttls":
            steps: list[Step] = list(other["steps"])
            for index, step in enumerate(steps):
                if "send" in step and STARTTLS.fullmatch(octets(step)):
                    return steps[index:]
    return []


def granted(client: Client, others: Sequence[Client]) -> list[Step] | None:
    """A STARTTLS that was refused is granted; then as with a server that grants it, or the client goes away."""
    steps = list(client["steps"])
    for index, step in enumerate(steps):
        if "send" in step and STARTTLS.fullmatch(octets(step)):
            behind = twin(client, others)[2:] or [{"tls": True, "result": "client went away"}, LOST]
            return [*steps[: index + 1], {"expect": GRANTED[client["protocol"]]}, *behind]
    return steps


def without_starttls(client: Client, others: Sequence[Client]) -> list[Step] | None:
    """Clients that go on in the clear after a refusal, had they not asked: there must be no way round TLS."""
    steps = list(client["steps"])
    for index, step in enumerate(steps):
        if "send" in step and STARTTLS.fullmatch(octets(step)):
            behind = steps[index + 2 :]
            return steps[:index] + behind if any("send" in each for each in behind) else None
    return None


def offered(client: Client, others: Sequence[Client]) -> list[Step] | None:
    """Clients that gave up, or did without, as no STARTTLS was offered: here it is, and they take it."""
    steps = capable(client, others) or []
    if any("send" in step and STARTTLS.fullmatch(octets(step)) for step in steps):
        return None
    head = []
    for step in steps:
        if "close" in step or ("send" in step and not HELLO.fullmatch(octets(step))):
            break
        head.append(step)
    behind = twin(client, others)
    if not behind:
        return None
    if client["scenario"] == "nocapa":  # inside TLS the server's own refusal is relayed
        behind = [
            {"expect": "^-ERR"} if "expect" in step and was_capa(behind[index - 1]) else step
            for index, step in enumerate(behind)
        ]
    return [*head, {"offer": True}, *behind]


def capable(client: Client, others: Sequence[Client]) -> list[Step] | None:
    """CAPA that was refused is answered by us (a server with STLS has it, RFC 2595 4); so is EHLO."""
    steps: list[Step] = list(client["steps"])
    secured = False
    for index, step in enumerate(steps[1:], 1):
        secured = secured or "tls" in step
        if step.get("expect") == "^-ERR" and was_capa(steps[index - 1]) and not secured:
            steps[index] = {"expect": r"^\.$"}
        if step.get("expect") == "^502 " and octets(steps[index - 1])[:4].upper() == b"EHLO":
            steps[index] = {"expect": "^250 "}
    return steps


def was_capa(step: Step) -> bool:
    return "send" in step and octets(step).upper() == b"CAPA\r\n"


def turned_away(client: Client, others: Sequence[Client]) -> list[Step] | None:
    """PREAUTH would log everybody in as the gateway: the client hears that there is no service, and no more."""
    said = [step for step in client["steps"] if "send" in step]
    return [{"expect": r"^\* BYE \[UNAVAILABLE\] "}, {"over": "backend-preauth"}, *said, *client["steps"][-1:]]


@dataclass(frozen=True)
class Scenario:
    """How a kind of recording is played, and what is asserted beyond what the module says."""

    says: str
    policy: Policy = Policy.REQUIRED
    plans: tuple[Plan, ...] = (recorded,)


SCENARIOS = {
    "required": Scenario(
        "all that was recorded: refusals in the clear (530, NO, -ERR), then TLS, login, mail; clients that will "
        "not have TLS are refused with what they were refused with there"
    ),
    "auth-only": Scenario("all that was recorded: mail in the clear is accepted, a login is refused", Policy.AUTH_ONLY),
    "implicit": Scenario("all that was recorded: TLS first, then greeting, login, mail"),
    "noauth": Scenario(
        "all that was recorded: no AUTH is offered inside TLS; AUTH and mail without it work all the same"
    ),
    "authfail": Scenario(
        "all that was recorded: the refusal reaches the client, another attempt is possible, no splice"
    ),
    "alert": Scenario("all that was recorded, with untagged NOs around the login's success"),
    "mixedcase": Scenario("all that was recorded, from a server that says +Ok and -Err"),
    "busy": Scenario("the backend's refusal as greeting reaches the client; what it still says reaches nobody"),
    "greet554": Scenario("554 reaches the client, RSET is answered 503 by us, QUIT by the backend"),
    "multigreet": Scenario("all that was recorded, behind a greeting of three lines"),
    "bare": Scenario("all that was recorded, with the shortest of capability lists"),
    "nocapgreet": Scenario("all that was recorded, with no list in the greeting"),
    "dribble": Scenario("all that was recorded"),
    "early": Scenario("all that was recorded, the first command before the greeting: kept, and answered after it"),
    "hsfail": Scenario("the go-ahead, then a handshake that fails: nothing is said and nothing is heard any more"),
    "nostarttls": Scenario(
        "in the clear all that was recorded; STARTTLS, asked for without an offer, is granted; offered, it is taken",
        Policy.OPTIONAL,
        (granted, offered),
    ),
    "nostarttls-noauth": Scenario(
        "in the clear the recorded refusals; STARTTLS, asked for without an offer, is granted; offered, it is taken",
        plans=(granted, offered),
    ),
    "refuse": Scenario(
        "STARTTLS is granted; clients that went on in the clear are refused as they were there",
        plans=(granted, without_starttls),
    ),
    "ehlo502": Scenario(
        "EHLO is answered 250 with STARTTLS in the name of a server that knows only HELO; the rest as recorded; "
        "offered, STARTTLS is taken",
        Policy.AUTH_ONLY,
        (capable, offered),
    ),
    "nocapa": Scenario(
        "CAPA is answered by us with STLS alone before TLS; the rest as recorded; offered, STLS is taken, and CAPA "
        "inside TLS is refused by the backend",
        plans=(capable, offered),
    ),
    "preauth": Scenario("no service, whatever the client says then", plans=(turned_away,)),
}


def test_a_real_client_gets_where_an_honest_server_would_have_got_it(
    client: Client, recordings: Sequence[Client]
) -> None:
    client, *others = [{**each, "steps": without_events(each["steps"])} for each in (client, *recordings)]
    scenario = SCENARIOS[client["scenario"]]
    for plan, cut in product(scenario.plans, (WHOLE, SINGLE)):
        steps = plan(client, others)
        if steps is not None:
            Session(client, scenario.policy, cut).play(steps)


# --- the performance ---------------------------------------------------------------------------------


class Session:
    """One client, the gateway, and a server that is patient with both."""

    def __init__(self, client: Client, policy: Policy, cut: int) -> None:
        self.protocol: str = client["protocol"]
        self.early = client["scenario"] == "early"
        self.policy = policy
        self.implicit = client["mode"] == "implicit"
        self.server = SERVERS[self.protocol](client["scenario"])
        self.rig = Rig(DIALECTS[self.protocol], terms(policy=policy, implicit=self.implicit), cut)
        self.secured = False
        self.told = b""  # and not yet waited for
        self.ever_told = b""
        self.over = ""
        self.farewell = b""
        self.failed = False
        self.greeted = False

    def play(self, steps: Sequence[Step]) -> None:
        self.settle(self.rig.start())
        if not self.implicit:
            self.connect(steps)
        for index, step in enumerate(steps):
            match step:
                case {"expect": wanted}:
                    self.wait(wanted)
                case {"send": _}:
                    if not (self.early and self.first(steps) == index):
                        self.settle(self.rig.client(octets(step)))
                case {"tls": True}:
                    self.shake_hands(step, steps)
                case {"offer": True}:
                    self.look_for_the_offer(steps)
                case {"over": reason}:
                    self.check(self.over == reason)
                case {"close": _}:
                    self.part(step, steps)
        self.look_back(steps)

    def first(self, steps: Sequence[Step]) -> int:
        return next(index for index, step in enumerate(steps) if "send" in step)

    def connect(self, steps: Sequence[Step]) -> None:
        if self.early:
            self.settle(self.rig.client(octets(steps[self.first(steps)])))
            self.check(not self.server.commands)
        self.settle(self.rig.dialled())
        self.settle(self.rig.backend(self.server.greeting()))
        self.greeted = True
        if self.server.scenario == "busy":
            self.check(self.over == "backend-refused")

    def shake_hands(self, step: Step, steps: Sequence[Step]) -> None:
        if not step.get("result"):
            self.secured = True
            self.settle(self.rig.secured())
            if self.implicit:
                self.connect(steps)
            return
        self.failed = True
        happening = self.rig.unsecured(step["result"])
        self.check(not happening.told, happening.over == "tls-failed")
        self.settle(happening)

    def settle(self, happening: Happening) -> None:
        """Bring to the backend what is for it, and its answers back, until nothing is under way."""
        while True:
            self.check(not self.over or not happening.told, not self.failed or not happening.told)
            self.told += happening.told
            self.ever_told += happening.told
            if happening.over:
                self.over = happening.over
                self.farewell = happening.heard
            if not happening.heard:
                return
            before = len(self.server.commands)
            answer = self.server.hear(happening.heard)
            for command in self.server.commands[before:]:
                self.judge(command)
            if self.over or not answer:
                return
            happening = self.rig.backend(answer)

    def judge(self, command: bytes) -> None:
        if not self.secured and self.policy is Policy.REQUIRED:
            self.check(bool(HARMLESS[self.protocol].match(command)))
        if not self.secured and self.policy is not Policy.OPTIONAL:
            self.check(not LOGIN.match(command))

    def wait(self, wanted: str) -> None:
        match = re.search(wanted.encode("latin-1"), self.told.replace(b"\r\n", b"\n"), re.MULTILINE)
        assert match, f"waits for {wanted!r}, was told {self.told!r}\n{self.transcript()}"
        read = self.told.replace(b"\r\n", b"\n")
        end = read.find(b"\n", match.end())
        self.told = read[end + 1 :].replace(b"\n", b"\r\n")

    def look_for_the_offer(self, steps: Sequence[Step]) -> None:
        asked = any("send" in step for step in steps[: steps.index({"offer": True})])
        if asked or self.protocol == "imap":
            self.check(re.search(rb"\b(?:STARTTLS|STLS)\b", self.ever_told) is not None)

    def part(self, step: Step, steps: Sequence[Step]) -> None:
        """The client goes away; whatever it left behind ends."""
        orderly = "rst" not in step["tcp"]
        unfinished = isinstance(self.server, SMTPServer) and self.server.in_message
        happening = self.rig.ended(Side.CLIENT, orderly)
        self.settle(happening)
        self.check(self.rig.stage.negotiation.over)
        if happening.over:
            polite = not happening.aborted
            known = self.server.authenticated or unfinished
            self.check(not (known and polite), polite or not happening.heard)
            self.check(happening.over in ("client-closed", "client-lost", "tls-failed"))

    def look_back(self, steps: Sequence[Step]) -> None:
        self.check(not re.search(rb"(?<!\r)\n", self.ever_told), self.ever_told[-2:] in (b"\r\n", b""))
        sent = [octets(step) for step in steps if "send" in step]
        if self.over in ("", "quit") and sent and re.match(rb"(?:\S+ )?(?:QUIT|LOGOUT)\r\n", sent[-1], re.IGNORECASE):
            self.check(self.server.quit)
        if isinstance(self.server, SMTPServer):
            self.compare_messages(self.server.messages, steps)
            told = was_told_of_its_authentication(steps)
        else:
            self.check(self.rig.spliced == self.server.authenticated)
            told = was_told_of_its_login(steps)
        self.check(told is None or self.server.authenticated == told)

    def compare_messages(self, messages: Sequence[bytes], steps: Sequence[Step]) -> None:
        wanted = []
        for index, step in enumerate(steps[:-1]):
            unheard = "send" in step and "send" in steps[index + 1] and DATA.search(octets(step)) is not None
            if step.get("expect") == "^354" or unheard:
                parts = []
                for each in steps[index + 1 :]:
                    if "send" not in each:
                        break
                    parts.append(octets(each))
                wanted.append(re.sub(rb"\r?\n", b"\r\n", b"".join(parts)).removesuffix(b".\r\n"))
        assert len(messages) == len(wanted), self.transcript()
        for message, hoped in zip(messages, wanted, strict=True):
            trace, end, rest = message.partition(b" +0000\r\n")
            self.check(trace.startswith(b"Received: from "), bool(end), rest == hoped)
            self.check((b" with ESMTPS" in trace) == self.secured)

    def check(self, *facts: bool) -> None:
        assert all(facts), self.transcript()

    def transcript(self) -> str:
        return "\n".join(
            [self.policy.value, *self.rig.transcript, f"over: {self.over!r}", f"heard: {self.server.commands}"]
        )


def was_told_of_its_login(steps: Sequence[Step]) -> bool | None:
    """Whether the client waited for the success of a login (IMAP, POP3); None if the recording does not tell."""
    pending = False
    for said, waited in groups(steps):
        places = [place for place, line in enumerate(said) if SENT.match(line)]
        if not (places or pending):
            continue
        answers = [answer for answer in waited if not answer.startswith(r"^\*")]
        if not answers:
            return None
        # Of commands that were sent together each has its answer; where one is missing, the last is the login's.
        answer = answers[min(places[0] if places else 0, len(answers) - 1)]
        if "OK" in answer.upper():
            return True
        pending = answer == r"^\+ "
    return False


def was_told_of_its_authentication(steps: Sequence[Step]) -> bool | None:
    """The same for SMTP."""
    if any(step.get("expect") == "^235 " for step in steps):
        return True
    unheard = any(
        len(waited) < len(said) for said, waited in groups(steps) if any(line[:5].upper() == b"AUTH " for line in said)
    )
    return None if unheard else False
