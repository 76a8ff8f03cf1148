"""IMAP: every command under every policy, and the rows I and G of docs/conformance.md that need no sockets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import conversation
from gateway.dialects.base import Policy
from gateway.dialects.mail.imap import DIALECT
from gateway.dialects.mail.imap.capabilities import edit_capabilities, edit_line
from gateway.dialects.mail.imap.literals import LITERAL_OCTETS
from gateway.dialects.mail.imap.syntax import Literal, Malformed, edit_id, literal_of
from gateway.protocol.vocabulary import Close, Patience, Side
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    PROVEN,
    SPLICE,
    WHOLE,
    Playbook,
    Stage,
    aborts,
    close,
    note,
    terms,
    tls,
    to_backend,
    to_client,
)

OFFERED = (
    b"IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ STARTTLS AUTH=PLAIN AUTH=LOGIN"
    b" AUTH=SCRAM-SHA-1 AUTH=SCRAM-SHA-1-PLUS AUTH=EXTERNAL"
)
KEPT = b"IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+"
SHOWN = {
    "closed": KEPT + b" STARTTLS LOGINDISABLED",
    "open": KEPT + b" AUTH=PLAIN AUTH=LOGIN STARTTLS",
    "secure": KEPT + b" AUTH=PLAIN AUTH=LOGIN",
}
STAGE = {Policy.REQUIRED: "closed", Policy.AUTH_ONLY: "closed", Policy.OPTIONAL: "open"}
POLICIES = tuple(Policy)

MUST = b"a NO [PRIVACYREQUIRED] Must issue a STARTTLS command first\r\n"
UNAVAILABLE = b"* BYE [UNAVAILABLE] Service temporarily unavailable\r\n"
LOST = b"* BYE [UNAVAILABLE] Connection to mail server lost\r\n"
TOO_MANY = b"* BYE Too many invalid commands\r\n"
TOO_LONG = b"* BYE Command too long\r\n"
LOGOUT = to_backend(b"sgw9 LOGOUT\r\n")


def plain(policy: Policy = Policy.REQUIRED, **changes: object) -> Playbook:
    """A plaintext port, greeted."""
    return Playbook(DIALECT, terms(policy=policy, **changes)).start(DIAL).dialled().returns(b"* OK ready\r\n")


def inside(policy: Policy = Policy.REQUIRED, **changes: object) -> Playbook:
    """The same after STARTTLS."""
    return (
        plain(policy, **changes)
        .client(b"s STARTTLS\r\n", tls(b"s OK Begin TLS negotiation now\r\n"))
        .phase("handshake")
        .secured()
        .phase("secure")
    )


def implicit(**changes: object) -> Playbook:
    return Playbook(DIALECT, terms(implicit=True, **changes)).start(tls(b"")).secured(DIAL)


def lazy(policy: Policy = Policy.REQUIRED, **changes: object) -> Playbook:
    hello = b"IMAP4rev1 STARTTLS" + (b"" if policy is Policy.OPTIONAL else b" LOGINDISABLED")
    return Playbook(DIALECT, terms(policy=policy, lazy=True, **changes)).start(
        to_client(b"* OK [CAPABILITY %s] gw.example.org ready\r\n" % hello)
    )


# --- the transcript, I01 -------------------------------------------------------------------------


def test_i01_the_sample_session() -> None:
    listed = b"IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ STARTTLS AUTH=PLAIN AUTH=LOGIN AUTH=EXTERNAL"
    after = b"e OK [CAPABILITY IMAP4rev1 MOVE] Logged in\r\n"
    completed = b"c OK Pre-login capabilities listed, post-login capabilities have more.\r\n"
    book = (
        Playbook(DIALECT)
        .start(DIAL)
        .phase("dialling")
        .dialled()
        .phase("greeting")
        .backend(
            b"* OK [CAPABILITY %s] legacy ready.\r\n" % listed,
            to_client(b"* OK [CAPABILITY %s] legacy ready.\r\n" % SHOWN["closed"]),
        )
        .phase("plaintext")
        .client(
            b"a LOGIN joe secret\r\n",
            to_client(b"a NO [PRIVACYREQUIRED] Must issue a STARTTLS command first\r\n"),
        )
        .client(b"b STARTTLS\r\n", tls(b"b OK Begin TLS negotiation now\r\n"))
        .secured()
        .passes(b"c CAPABILITY\r\n")
        .waits(Patience.REPLY)
        .backend(
            b"* CAPABILITY %s\r\n" % listed + completed,
            to_client(b"* CAPABILITY %s\r\n" % SHOWN["secure"] + completed),
        )
        .waits(Patience.COMMAND)
        .client(b"d STARTTLS\r\n", to_client(b"d BAD TLS is already active\r\n"))
        .asks(b"e LOGIN {3}\r\n", b"+ OK\r\n")
        .asks(b"joe {6}\r\n", b"+ OK\r\n")
        .asks(b"secret\r\n", after, note("auth", result="ok", mechanism="LOGIN"), PROVEN, SPLICE)
        .run()
    )
    assert book.proven == 1


# --- commands before TLS, 3.2 ---------------------------------------------------------------------

FORWARD = b"(forwarded)"

COMMANDS = [
    (b"a CAPABILITY\r\n", FORWARD, FORWARD, FORWARD),
    (b"a NOOP\r\n", b"a OK NOOP completed\r\n", FORWARD, FORWARD),
    (b"a LOGOUT\r\n", FORWARD, FORWARD, FORWARD),
    *((b"a ID %s\r\n" % args, *(b"* ID NIL\r\na OK ID completed\r\n",) * 3) for args in (b"NIL", b'("name" "x")')),
    (b'a id ("x-originating-ip" "192.0.2.66")\r\n', *(b"* ID NIL\r\na OK ID completed\r\n",) * 3),
    (b"a LOGIN joe secret\r\n", MUST, MUST, FORWARD),
    (b"a login joe secret\r\n", MUST, MUST, FORWARD),
    (b"a AUTHENTICATE PLAIN\r\n", MUST, MUST, FORWARD),
    (b"a AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ=\r\n", MUST, MUST, FORWARD),
    (b"a AUTHENTICATE EXTERNAL =\r\n", MUST, MUST, b"a NO Unsupported authentication mechanism\r\n"),
    (b"a SELECT INBOX\r\n", MUST, FORWARD, FORWARD),
    (b"a LANGUAGE de\r\n", MUST, FORWARD, FORWARD),
    (b"a ENABLE IMAP4rev2\r\n", MUST, FORWARD, FORWARD),
    (b"a X-FOO.BAR-1 baz\r\n", MUST, FORWARD, FORWARD),
    (b"a STARTTLS now\r\n", *(b"a BAD STARTTLS takes no arguments\r\n",) * 3),
    (b"a STARTTLS {3}\r\n", *(b"a BAD STARTTLS takes no arguments\r\n",) * 3),
    (b"a STARTTLS {0+}\r\n\r\n", *(b"a BAD STARTTLS takes no arguments\r\n",) * 3),
    (b"a CAPABILITY x\r\n", *(b"a BAD Invalid arguments\r\n",) * 3),
    (b"a NOOP x\r\n", *(b"a BAD Invalid arguments\r\n",) * 3),
    (b"a LOGOUT x\r\n", *(b"a BAD Invalid arguments\r\n",) * 3),
    (b"a  STARTTLS\r\n", *(b"a BAD Invalid command\r\n",) * 3),
    (b"a STARTTLS\tx\r\n", *(b"a BAD Invalid command\r\n",) * 3),
    (b"a \r\n", *(b"a BAD Invalid command\r\n",) * 3),
    (b"a NO(OP {60}\r\n", *(b"a BAD Invalid command\r\n",) * 3),
    (b"a\tSTARTTLS\r\n", *(b"* BAD Invalid tag\r\n",) * 3),
    (b"a\r\n", *(b"a BAD Missing command\r\n",) * 3),
    (b"\r\n", *(b"* BAD Invalid tag\r\n",) * 3),
    (b"STARTTLS\r\n", *(b"STARTTLS BAD Missing command\r\n",) * 3),
    (b"a NOOP\0\r\n", *(b"* BAD Invalid characters\r\n",) * 3),
    (b"a NOOP\rb NOOP\r\n", *(b"* BAD Invalid characters\r\n",) * 3),
    (b'a SELECT "x\r\n', *(b"a BAD Invalid arguments\r\n",) * 3),
]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: repr(row[0]))
def test_every_command_before_tls(row: tuple[bytes, ...], policy: Policy) -> None:
    sent, outcome = row[0], row[1 + POLICIES.index(policy)]
    told = to_backend(sent) if outcome is FORWARD else to_client(outcome)
    plain(policy).client(sent, told).run()


@pytest.mark.parametrize("policy", POLICIES)
def test_starttls_before_tls(policy: Policy) -> None:
    plain(policy).client(b"a starttls\n", tls(b"a OK Begin TLS negotiation now\r\n")).run()


@pytest.mark.parametrize("policy", POLICIES)
def test_capabilities_before_tls(policy: Policy) -> None:
    shown = SHOWN[STAGE[policy]]
    book = plain(policy).client(b"a CAPABILITY\n", to_backend(b"a CAPABILITY\r\n"))
    book.backend(
        b"* CAPABILITY %s\na OK done\n" % OFFERED,
        to_client(b"* CAPABILITY %s\r\na OK done\r\n" % shown),
    ).run()


def test_g10_starttls_with_a_literal_inside_tls() -> None:
    (
        implicit()
        .dialled()
        .returns(b"* OK hi\r\n")
        .client(b"a STARTTLS x {2+}\r\nyy\r\n", to_client(b"a BAD TLS is already active\r\n"))
        .passes(b"b NOOP\r\n")
        .run()
    )


# --- greetings, G01 to G04, I02, I15 --------------------------------------------------------------


@pytest.mark.parametrize("start", ["plain", "implicit", "lazy"])
def test_i15_preauth_is_never_passed_on(start: str) -> None:
    if start == "lazy":
        book = lazy(Policy.OPTIONAL).client(b"a SELECT x\r\n", DIAL).dialled()
    else:
        book = implicit().dialled() if start == "implicit" else Playbook(DIALECT).start(DIAL).dialled()
    tagged = b"a NO [UNAVAILABLE] Service temporarily unavailable\r\n" if start == "lazy" else b""
    book.backend(
        b"* PREAUTH welcome, gateway\r\n",
        *aborts("backend-preauth", tagged + UNAVAILABLE),
    ).run()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"* OK ready\r\n", b"* OK ready\r\n"),
        (b"* ok ready\n", b"* ok ready\r\n"),
        (b"* OK\r\n", b"* OK\r\n"),
        (b"* OK [capability imap4 auth=login] x\r\n", b"* OK [capability imap4 STARTTLS LOGINDISABLED] x\r\n"),
        (b"* OK hi [CAPABILITY IMAP4 AUTH=X] x\r\n", b"* OK hi [CAPABILITY IMAP4 STARTTLS LOGINDISABLED] x\r\n"),
        (b"* OK [CAPABILITY] x\r\n", b"* OK [CAPABILITY STARTTLS LOGINDISABLED] x\r\n"),
    ],
)
def test_i02_greetings(said: bytes, told: bytes) -> None:
    Playbook(DIALECT).start(DIAL).dialled().backend(said, to_client(told)).run()


def test_several_greeting_lines() -> None:
    """As Dovecot greets while its authentication process starts."""
    plain().backend(
        b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] Dovecot ready.\r\n",
        to_client(b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] Dovecot ready.\r\n"),
    ).run()


# --- literals, I03 to I07, I19 --------------------------------------------------------------------


@pytest.mark.parametrize(("said", "behind"), [
    (b"a LOGIN {3}\r\nb NOOP\r\n", b"b OK NOOP completed\r\n"),
    (b"a LOGIN {3+}\r\njoe {6+}\r\nsecret\r\nb NOOP\r\n", b"b OK NOOP completed\r\n"),
    (b"a LOGIN {3+}\r\njoe {6}\r\n", b""),
    (b"a LOGIN {17+}\r\nb STARTTLS\r\nc X\r\n x\r\nd NOOP\r\n", b"d OK NOOP completed\r\n"),
])  # fmt: skip
def test_i03_i04_i05_a_refused_literal_is_not_asked_for_and_none_of_it_is_a_command(said: bytes, behind: bytes) -> None:
    plain().client(said, to_client(MUST + behind)).run()


def test_G30_the_content_of_a_literal_is_no_command_even_behind_nonsense() -> None:
    plain().client(b"{12+}\r\nb STARTTLS\r\n x\r\n", to_client(b"* BAD Invalid tag\r\n")).run()
    inside().client(b"a {12+}\r\nb STARTTLS\r\n x\r\n", to_client(b"a BAD Invalid command\r\n")).run()
    bad = to_client(b"* BAD Invalid characters\r\n")
    inside().client(b"a LOGIN \0 {12+}\r\nb STARTTLS\r\n x\r\n", bad).run()
    inside().client(b"a LOGIN \r {12+}\r\nb STARTTLS\r\n x\r\n", bad).run()


@pytest.mark.parametrize("size", [b"65537", b"99999999999", b"9" * 5000, b"18446744073709551617"])
@pytest.mark.parametrize("plus", [b"", b"+"])
def test_i06_literals_without_measure(size: bytes, plus: bytes) -> None:
    end = (note("client-line-too-long"), to_client(TOO_LONG), LOGOUT, close("client-line-too-long"))
    plain().client(b"a LOGIN {%s%s}\r\n" % (size, plus), *end).run()
    gone = (to_client(TOO_LONG), ABORT_BACKEND, close("client-line-too-long"))
    inside().client(b"a LOGIN {%s%s}\r\n" % (size, plus), *gone).run()


def test_i06_many_literals_count_together() -> None:
    """Empty ones too: the lines between them are paid for."""
    half = LITERAL_OCTETS // 2
    plain().client(
        b"a LOGIN {%d+}\r\n" % half + b"x" * half + b" {%d+}\r\n" % half,
        to_client(TOO_LONG),
        LOGOUT,
        close("client-line-too-long"),
    ).run(cuts=(WHOLE, 1000))
    plain().client(
        b"a LOGIN {0+}\r\n" + b"{0+}\r\n" * 20000, to_client(TOO_LONG), LOGOUT, close("client-line-too-long")
    ).run(cuts=(WHOLE,))


@pytest.mark.parametrize(
    "line", [b'a LOGIN "x{3}"', b'a LOGIN "x\\"{3}"', b'a LOGIN "x{3" y}', b"a LOGIN u pa{ss", b"a LOGIN u pa{5}ss"]
)
def test_i07_no_literals(line: bytes) -> None:
    inside().passes(line + b"\r\n").run()


@pytest.mark.parametrize(
    "line",
    [
        b"a LOGIN {}",
        b"a LOGIN {-1}",
        b"a LOGIN {1e3}",
        b"a LOGIN {+}",
        b"a LOGIN {+5}",
        b"a LOGIN {5 }",
        b"a LOGIN { 5}",
        b"a LOGIN {5} ",
        b"a LOGIN {5}x",
        b"a LOGIN {5+",
        b"a LOGIN {5",
        b"a LOGIN {",
        b"a LOGIN {5++}",
        b"a LOGIN {5-}",
        b"a LOGIN {0x5}",
        b"a LOGIN ~{5}x",
        b"a LOGIN ~{5+",
        b'a LOGIN "x"{5}y',
        b"a LOGIN pa{5",
        b"a LOGIN pa{5 }",
        b"a LOGIN pa{}",
        b"a FOO ({5 }",
        b'a LOGIN "x{3}',
        b'a LOGIN x"y {3+}',
    ],
)
def test_a_brace_that_some_server_may_take_for_a_literal_is_not_passed_on(line: bytes) -> None:
    inside().client(line + b"\r\n", to_client(b"a BAD Invalid arguments\r\n")).run()


def test_a_literal_goes_to_the_backend_only_when_it_asks() -> None:
    book = inside().client(b"a LOGIN {003+}\r\njoe {6+}\r\nsecret\r\n", to_backend(b"a LOGIN {3}\r\n"))
    book.backend(b"+ go\r\n", to_backend(b"joe {6}\r\n"))
    book.backend(b"+ go\r\n", to_backend(b"secret\r\n"))
    book.returns(b"a NO sorry\r\n", note("auth", result="failed", mechanism="LOGIN"))
    book.run()


@pytest.mark.parametrize("verb", [b"FOO", b"LOGIN"])
def test_i19_a_literal_of_a_rejected_command_never_reaches_the_backend(verb: bytes) -> None:
    sneaky = b'b ID ("x-originating-ip" "1.2.3.4")\r\n'
    book = inside().client(
        b"a %s {%d+}\r\n" % (verb, len(sneaky)) + sneaky + b" x\r\nc NOOP\r\n",
        to_backend(b"a %s {%d}\r\n" % (verb, len(sneaky))),
    )
    book.returns(b"a BAD no\r\n", to_backend(b"c NOOP\r\n")).run()


def test_i19_a_verb_that_is_no_atom() -> None:
    sneaky = b'b ID ("x-originating-ip" "1.2.3.4")\r\n'
    inside().client(
        b"a NO(OP {%d+}\r\n" % len(sneaky) + sneaky + b"\r\n", to_client(b"a BAD Invalid command\r\n")
    ).run()


def test_a_rejected_literal_that_waits_is_not_awaited() -> None:
    book = inside().asks(b"a LOGIN {3}\r\n", b"* OK so\r\na NO [X] no\r\n")
    book.passes(b"b NOOP\r\n").run()


def test_a_large_literal_is_rejected_and_swallowed_once() -> None:
    book = inside().client(b"a FOO {60000+}\r\n", to_backend(b"a FOO {60000}\r\n")).backend(b"a BAD no\r\n")
    book.client(b"x" * 60000 + b"\r\n", to_client(b"a BAD no\r\n")).run(cuts=(WHOLE, 1000))


def test_a_login_without_its_password_does_not_succeed() -> None:
    book = inside().passes(b"a LOGIN {3}\r\n")
    book.backend(
        b"a OK so be it\r\n",
        *aborts("backend-protocol-error", b"a NO [UNAVAILABLE] Service temporarily unavailable\r\n" + UNAVAILABLE),
    ).run()
    inside().asks(b"a FOO {3}\r\n", b"a OK whatever\r\n").run()


@pytest.mark.parametrize("rest", [b'"x\r\n', b"{x}\r\n", b"\0\r\n", b"x\ry\r\n"])
def test_a_broken_line_behind_a_literal_ends_the_session(rest: bytes) -> None:
    end = (to_client(b"* BYE Invalid command\r\n"), close("client-bad-command"))
    book = inside().asks(b"a LOGIN {3}\r\n", b"+ \r\n")
    book.client(b"joe" + rest, to_backend(b"joe"), end[0], ABORT_BACKEND, end[1]).run()
    plain().client(b"a LOGIN {3+}\r\njoe" + rest, end[0], LOGOUT, end[1]).run()


def test_literals_of_the_backend_pass() -> None:
    said = b'* ID ("name" {5}\r\nab\r\nc "x" {2}\r\nde)\r\na OK done\r\n'
    inside().asks(b'a ID ("name" "x")\r\n', said).run()


def test_human_text_announces_no_literal() -> None:
    inside().asks(b"a NOOP\r\n", b"* OK no braces {3}\r\na OK done {3}\r\n").run()


# --- logins, I08 to I11 ---------------------------------------------------------------------------


def test_i08_authenticate_in_all_its_turns() -> None:
    book = inside().client(b"a AUTHENTICATE PLAIN\r\nLOGOUT\r\n", to_backend(b"a AUTHENTICATE PLAIN\r\n"))
    book.returns(b"+ \r\n", to_backend(b"LOGOUT\r\n"))
    book.returns(b"a NO [AUTHENTICATIONFAILED] no\r\n")
    book.asks(b"b authenticate login\r\n", b"+ VXNlcm5hbWU6\r\n")
    book.asks(b"*\r\n", b"b BAD cancelled\r\n")
    book.asks(b"c AUTHENTICATE PLAIN AGEAYg==\r\n", b"c OK in\r\n", SPLICE).run()
    assert [dict(each.fields) for each in book.notes if each.event == "auth"] == [
        {"result": "failed", "mechanism": "PLAIN"},
        {"result": "failed", "mechanism": "LOGIN"},
        {"result": "ok", "mechanism": "PLAIN", "user": b"a"},
    ]


@pytest.mark.parametrize(
    "words",
    [b'"EXTERNAL"', b"{8}", b"{8+}\r\nEXTERNAL", b" EXTERNAL", b"", b"EXTERNAL\tx", b"PLAIN {4+}\r\nAGE=", b"(PLAIN)"],
)
def test_a_mechanism_is_a_bare_atom(words: bytes) -> None:
    inside().client(b"a AUTHENTICATE " + words + b"\r\n", to_client(b"a BAD Invalid arguments\r\n")).run()
    inside().client(b"a AUTHENTICATE\r\n", to_client(b"a BAD Invalid arguments\r\n")).run()


@pytest.mark.parametrize("word", [b"external", b"EXTERNAL =", b"SCRAM-SHA-256-PLUS", b"scram-sha-1-plus abc="])
def test_g12_what_is_said_to_mechanisms_that_would_authenticate_the_gateway(word: bytes) -> None:
    refusal = to_client(b"a NO Unsupported authentication mechanism\r\n")
    inside().client(b"a AUTHENTICATE " + word + b"\r\n", refusal).run()


@pytest.mark.parametrize("line", [b"\0", b"AGE\rb NOOP", b'b ID ("x-originating-ip" "10.0.0.1")', b"AGE=b", b" "])
def test_an_unclean_response_cancels_the_exchange(line: bytes) -> None:
    book = inside().asks(b"a AUTHENTICATE PLAIN\r\n", b"+ \r\n").client(line + b"\r\n", to_backend(b"*\r\n"))
    book.returns(b"a BAD cancelled\r\n").run()


def test_responses_may_be_long_but_not_endless() -> None:
    line = b"x" * 65536 + b"\r\n"
    book = inside().asks(b"a AUTHENTICATE GSSAPI\r\n", b"+ \r\n").asks(line, b"+ \r\n")
    book.client(b"x" * 65536 * 2 + b"x", to_client(TOO_LONG), ABORT_BACKEND, close("client-line-too-long"))
    book.run(cuts=(WHOLE, 5000))


def test_a_verdict_may_come_while_a_response_is_awaited() -> None:
    book = inside().asks(b"a AUTHENTICATE PLAIN\r\n", b"+ \r\n")
    book.returns(b"* OK still here\r\n+ again\r\n")
    book.returns(b"a NO too slow\r\n")
    book.passes(b"b NOOP\r\n").run()


def test_i10_the_list_in_the_logins_success_is_edited() -> None:
    book = inside().passes(b"a LOGIN u p\r\n")
    book.backend(
        b"a OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED AUTH=EXTERNAL UNAUTHENTICATE] in\r\n",
        to_client(b"a OK [CAPABILITY IMAP4rev1 AUTH=EXTERNAL UNAUTHENTICATE] in\r\n"),
        SPLICE,
    )
    book.returns(b"* CAPABILITY STARTTLS\r\n").run()


def test_i10_the_same_in_the_clear_under_optional() -> None:
    book = plain(Policy.OPTIONAL).passes(b"a LOGIN u p\r\n")
    book.backend(
        b"a OK [CAPABILITY IMAP4rev1 STARTTLS] in\r\n", to_client(b"a OK [CAPABILITY IMAP4rev1] in\r\n"), PROVEN, SPLICE
    ).run()


def test_i11_only_the_tagged_ok_is_a_success() -> None:
    book = inside().passes(b"a LOGIN u p\r\n")
    for line in (b"* OK fake\r\n", b"* CAPABILITY IMAP4rev1\r\n", b"* a OK\r\n"):
        book.returns(line)
    book.returns(b"a NO no\r\n")
    book.client(b"b STARTTLS\r\n", to_client(b"b BAD TLS is already active\r\n")).run()


@pytest.mark.parametrize("line", [b"A OK x", b"b OK x", b"a YES", b"aOK", b"a", b"", b"*", b" BAD NULL COMMAND"])
def test_lines_that_mean_nothing_end_the_session(line: bytes) -> None:
    book = inside().passes(b"a LOGIN u p\r\n")
    book.backend(
        line + b"\r\n",
        *aborts("backend-protocol-error", b"a NO [UNAVAILABLE] Service temporarily unavailable\r\n" + UNAVAILABLE),
    ).run()


@pytest.mark.parametrize("policy", [Policy.REQUIRED, Policy.AUTH_ONLY])
def test_no_line_goes_out_unexamined_where_no_login_may(policy: Policy) -> None:
    """Whatever the backend asks for."""
    book = plain(policy).client(b"a CAPABILITY\r\nb LOGIN u p\r\n", to_backend(b"a CAPABILITY\r\n"))
    book.backend(
        b"+ go ahead\r\n",
        to_client(b"a NO [UNAVAILABLE] Service temporarily unavailable\r\n" + UNAVAILABLE),
        ABORT_BACKEND,
        close("backend-protocol-error"),
    ).run()


def test_no_other_command_than_a_login_may_ask_for_more() -> None:
    """What the client says then would be data for the backend or not, and we could not know."""
    book = inside().passes(b"a IDLE\r\n")
    book.backend(
        b"+ idling\r\n",
        to_client(b"a NO [UNAVAILABLE] Service temporarily unavailable\r\n" + UNAVAILABLE),
        ABORT_BACKEND,
        close("backend-protocol-error"),
    ).run()


@pytest.mark.parametrize("line", [b"a OK x", b"+ more", b"x" * 8193])
def test_lines_that_nobody_asked_for_end_the_session(line: bytes) -> None:
    plain().backend(line + b"\r\n", to_client(UNAVAILABLE), ABORT_BACKEND, close("backend-protocol-error")).run()


def test_untagged_lines_come_at_any_time() -> None:
    plain().backend(
        b"* OK [ALERT] maintenance\r\n* CAPABILITY IMAP4 AUTH=X\r\n",
        to_client(b"* OK [ALERT] maintenance\r\n* CAPABILITY IMAP4 STARTTLS LOGINDISABLED\r\n"),
    ).run()


@pytest.mark.parametrize(
    "flood", [b"* OK x\r\n" * 1001, (b"* OK " + b"x" * 8000 + b"\r\n") * 34, b'* ID ("x" {9999999999}\r\n']
)
def test_a_reply_without_measure(flood: bytes) -> None:
    stage = Stage(DIALECT, terms())
    stage.take(stage.negotiation.start())
    stage.take(stage.negotiation.dialled())
    stage.receive(Side.BACKEND, b"* OK hi\r\n")
    stage.receive(Side.CLIENT, b"a CAPABILITY\r\n")
    stage.receive(Side.BACKEND, flood)
    assert stage.negotiation.over
    assert isinstance(stage.deeds[-1], Close)
    assert stage.deeds[-1].reason == "backend-protocol-error"


# --- capabilities: I10, I17, G13 ------------------------------------------------------------------


def test_g13_i17_inside_tls() -> None:
    book = inside().passes(b"a CAPABILITY\r\n")
    book.backend(
        b"* CAPABILITY %s LOGINDISABLED\r\na OK\r\n" % OFFERED,
        to_client(b"* CAPABILITY %s LOGINDISABLED\r\na OK\r\n" % SHOWN["secure"]),
        note("backend-refuses-plaintext-auth"),
        note("backend-channel-binding"),
    ).run()
    assert all(each.once for each in book.notes)


def test_i17_before_tls_it_says_nothing() -> None:
    book = plain(Policy.OPTIONAL).asks(b"a CAPABILITY\r\n", b"* CAPABILITY LOGINDISABLED STARTTLS\r\na OK\r\n").run()
    assert not book.notes


S = conversation.Stage


@pytest.mark.parametrize(
    ("line", "stage", "told"),
    [
        (b"* CAPABILITY A STARTTLS B", S.CLOSED, b"* CAPABILITY A B STARTTLS LOGINDISABLED"),
        (b"* CAPABILITY A LOGINDISABLED STARTTLS", S.CLOSED, b"* CAPABILITY A STARTTLS LOGINDISABLED"),
        (b"* CAPABILITY A LOGINDISABLED STARTTLS", S.OPEN, b"* CAPABILITY A LOGINDISABLED STARTTLS"),
        (b"* CAPABILITY A LOGINDISABLED STARTTLS", S.SECURE, b"* CAPABILITY A LOGINDISABLED"),
        (b"* CAPABILITY A LOGINDISABLED STARTTLS", S.AUTHENTICATED, b"* CAPABILITY A"),
        (b"* CAPABILITY a auth=plain auth=external", S.OPEN, b"* CAPABILITY a auth=plain STARTTLS"),
        (b"* capability a auth=plain auth=external", S.SECURE, b"* capability a auth=plain"),
        (b"* CAPABILITY  A  B ", S.SECURE, b"* CAPABILITY  A  B "),
        (b"* CAPABILITY  A  starttls B ", S.SECURE, b"* CAPABILITY A B"),
        (b"* CAPABILITY AUTH=SCRAM-SHA-1 AUTH=SCRAM-SHA-1-PLUS", S.SECURE, b"* CAPABILITY AUTH=SCRAM-SHA-1"),
        (b"* CAPABILITY", S.CLOSED, b"* CAPABILITY STARTTLS LOGINDISABLED"),
        (b"* CAPABILITY STARTTLS", S.SECURE, b"* CAPABILITY"),
        (b"* CAPABILITIES STARTTLS", S.SECURE, b"* CAPABILITIES STARTTLS"),
        (b"* OK [CAPABILITY A STARTTLS", S.SECURE, b"* OK [CAPABILITY A"),
        (b"* OK [CAPABILITY A STARTTLS] STARTTLS", S.SECURE, b"* OK [CAPABILITY A] STARTTLS"),
        (b"* OK [CAPABILITYX STARTTLS] x", S.SECURE, b"* OK [CAPABILITYX STARTTLS] x"),
        (b"x9 no [capability A STARTTLS] x", S.SECURE, b"x9 no [capability A] x"),
        (b"* BYE [CAPABILITY A] x", S.CLOSED, b"* BYE [CAPABILITY A STARTTLS LOGINDISABLED] x"),
        (b'* ID ("x" "[CAPABILITY STARTTLS]")', S.SECURE, b'* ID ("x" "[CAPABILITY STARTTLS]")'),
        (b"* OK STARTTLS AUTH=PLAIN", S.CLOSED, b"* OK STARTTLS AUTH=PLAIN"),
    ],
)
def test_edited_lines(line: bytes, stage: conversation.Stage, told: bytes) -> None:
    assert edit_line(line, stage) == told


WORDS = st.sampled_from(
    b"IMAP4rev1 STARTTLS starttls LOGINDISABLED AUTH=PLAIN auth=plain AUTH=EXTERNAL AUTH=SCRAM-SHA-1"
    b" AUTH=SCRAM-SHA-1-PLUS AUTH=GSSAPI SASL-IR IDLE ]".split()
)
LINES = st.builds(
    lambda start, words, end: start + b" ".join(words) + end,
    st.sampled_from([b"* CAPABILITY ", b"* OK [CAPABILITY ", b"a OK [capability ", b"* OK ", b"* ", b""]),
    st.lists(WORDS | st.binary(max_size=5)),
    st.sampled_from([b"", b"]", b"] hello", b"] [CAPABILITY STARTTLS]"]),
)


@given(LINES, st.sampled_from(conversation.Stage))
def test_rewriting_twice_is_rewriting_once(line: bytes, stage: conversation.Stage) -> None:
    once = edit_line(line, stage)
    assert edit_line(once, stage) == once


@given(st.lists(WORDS), st.sampled_from(conversation.Stage))
def test_rewriting_keeps_the_order_and_hides_what_it_must(tokens: list[bytes], stage: conversation.Stage) -> None:
    told = edit_capabilities(tokens, stage)
    added = [b"STARTTLS", b"LOGINDISABLED"]
    kept = [token for token in told if token not in added]
    rest = iter(tokens)
    assert all(token in rest for token in kept)
    assert (told.count(b"STARTTLS"), b"starttls" in told) == (stage in (S.CLOSED, S.OPEN), False)
    if stage is not S.AUTHENTICATED:
        assert not {b"AUTH=EXTERNAL", b"AUTH=SCRAM-SHA-1-PLUS"} & set(told)
    if stage is S.CLOSED:
        assert not any(token.upper().startswith(b"AUTH=") for token in told)


# --- ID, I13 --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "forwarded"),
    [
        (b'("name" "x" "version" NIL)', b'("name" "x" "version" NIL)'),
        (b'("x-originating-ip" "1.2.3.4" "name" "x")', b'("name" "x")'),
        (b'("X-Originating-IP" "1.2.3.4")', b"NIL"),
        (b'("\\x-originating-ip" "1.2.3.4")', None),
        (b'(" x-proxy-ttl" "9")', b"NIL"),
        (b'("na\\"me" "\\\\")', b'("na\\"me" "\\\\")'),
        (b'( "name"  "x" )', b'("name" "x")'),
        (b"nil", b"NIL"),
        (b"()", b"NIL"),
        (b"", None),
        (b"(", None),
        (b"name", None),
        (b"(name x)", None),
        (b'("name")', None),
        (b'("name" "x"', None),
        (b'("name""x")', None),
        (b'("name" "x")("x-a" "b")', None),
        (b'("name" x-y)', None),
    ],
)
def test_i13_id_inside_tls(said: bytes, forwarded: bytes | None) -> None:
    book = inside()
    if forwarded is None:
        book.client(b"a ID " + said + b"\r\n", to_client(b"a BAD Invalid arguments\r\n")).run()
        return
    book.client(b"a ID " + said + b"\r\n", to_backend(b"a ID " + forwarded + b"\r\n"))
    book.returns(b"* ID NIL\r\na OK\r\n").run()


def test_i13_id_with_literals() -> None:
    book = inside().client(
        b'a ID ({16+}\r\nx-originating-ip {7+}\r\n1.2.3.4 {4+}\r\nn"me "x")\r\n', to_backend(b'a ID ("n\\"me" "x")\r\n')
    )
    book.returns(b"a OK\r\n")
    book.client(b"b ID ({4}\r\n", to_client(b"+ OK\r\n"))
    book.client(b"name {1}\r\n", to_client(b"+ OK\r\n"))
    book.client(b"x)\r\n", to_backend(b'b ID ("name" "x")\r\n')).run()


def test_i13_id_before_tls_is_answered_without_the_backend() -> None:
    book = plain(Policy.OPTIONAL).client(b"b ID ({16}\r\n", to_client(b"+ OK\r\n"))
    book.client(b'x-originating-ip "1.2.3.4")\r\n', to_client(b"* ID NIL\r\nb OK ID completed\r\n")).run()
    plain().client(b"a ID\r\n", to_client(b"a BAD Invalid arguments\r\n")).run()


def test_i13_a_literal_that_cannot_be_quoted() -> None:
    inside().client(
        b'a ID ({3+}\r\na\nb "x" {1+}\r\ny)\r\nb NOOP\r\n',
        to_client(b"a BAD Invalid arguments\r\n"),
        to_backend(b"b NOOP\r\n"),
    ).run()


def test_i13_a_literal_that_is_too_long_for_a_line_becomes_one_again() -> None:
    book = inside().client(
        b'a ID ("name" {9000+}\r\n' + b"x" * 9000 + b' "os" "y")\r\n', to_backend(b'a ID ("name" {9000}\r\n')
    )
    book.backend(b"+ go\r\n", to_backend(b"x" * 9000 + b' "os" "y")\r\n'))
    book.returns(b"a OK\r\n").run(cuts=(WHOLE, 1000))


@given(st.binary(max_size=80) | st.text('"\\(){} xX-NILnil', max_size=40).map(str.encode))
def test_i13_no_field_of_ours_survives(arguments: bytes) -> None:
    try:
        told = edit_id(arguments)
    except Malformed:
        return
    assert b'"x-' not in told.lower()
    assert edit_id(told) == told


# --- tags, I18 ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tag", [b"}{", b"", b"x" * 1001, b"+", b"*", b'"a"', b"\xe4", b"a\\b", b"%n", b"a(b", b"a)b", b"a\x7f", b"a+"]
)
def test_i18_tags_that_are_none(tag: bytes) -> None:
    plain().client(tag + b" STARTTLS\r\n", to_client(b"* BAD Invalid tag\r\n")).run()


@pytest.mark.parametrize(
    "tag", [b"x" * 100, b"x" * 1000, b"}", b"a]", b"A.1-2/3:4;5=6?7@8[9", b"!#$,^_`|~", b"'", b"&", b"<b>"]
)
def test_T07_tags_that_are_some(tag: bytes) -> None:
    plain().client(tag + b" STARTTLS\r\n", tls(tag + b" OK Begin TLS negotiation now\r\n")).run()
    inside().asks(tag + b" NOOP\r\n", tag + b" OK done\r\n").run()


# --- bad commands, bad octets, other protocols: G20, G21, G25 -------------------------------------


def test_three_lines_without_a_tag_in_a_row() -> None:
    bad = b"* BAD Invalid tag\r\n"
    book = (
        plain().client(b"\r\n(x\r\n", to_client(bad * 2)).client(b"a NOOP\r\n", to_client(b"a OK NOOP completed\r\n"))
    )
    book.client(b"\r\n(x\r\n", to_client(bad * 2))
    book.client(
        b"\0\r\n(z\r\n", to_client(b"* BAD Invalid characters\r\n" + TOO_MANY), LOGOUT, close("too-many-bad-commands")
    ).run()


def test_T07_a_tag_alone_is_repeated_in_the_answer_and_three_are_another_protocol() -> None:
    book = plain().client(b"a1\r\n", to_client(b"a1 BAD Missing command\r\n"))
    book.client(b"a2 \r\n", to_client(b"a2 BAD Invalid command\r\n"))
    book.client(b"CAPA\r\nUSER\r\n", to_client(b"CAPA BAD Missing command\r\nUSER BAD Missing command\r\n"))
    book.client(
        b"QUIT\r\n", to_client(b"QUIT BAD Missing command\r\n" + TOO_MANY), LOGOUT, close("too-many-bad-commands")
    ).run()
    inside().client(b"\r\n?\r\n", to_client(b"* BAD Invalid tag\r\n? BAD Missing command\r\n")).run()


def test_bad_commands_in_a_row() -> None:
    """The backend's BAD counts like ours; a success begins anew, but not NOOP's; NO is neither."""
    book = plain(Policy.AUTH_ONLY, bad_commands=3).client(b"a FOO(\r\n", to_client(b"a BAD Invalid command\r\n"))
    book.asks(b"a FOO\r\n", b"a BAD what\r\n")
    book.asks(b"a CAPABILITY\r\n", b"* CAPABILITY IMAP4 STARTTLS LOGINDISABLED\r\na OK\r\n")
    book.client(b"a LOGIN x y\r\n", to_client(MUST))
    book.asks(b"a NOOP\r\n", b"a OK\r\n")
    book.asks(b"a BAR\r\n", b"a NO\r\n")
    book.client(b"a ID\r\n", to_client(b"a BAD Invalid arguments\r\n"))
    book.passes(b"a FOO\r\n")
    book.backend(
        b"a BAD what\r\n", to_client(b"a BAD what\r\n" + TOO_MANY), LOGOUT, close("too-many-bad-commands")
    ).run()


def test_an_answer_of_our_own_is_a_success() -> None:
    book = plain(bad_commands=2)
    for _ in range(3):
        book.client(b"a X\r\n", to_client(MUST))
        book.client(b"a ID NIL\r\n", to_client(b"* ID NIL\r\na OK ID completed\r\n"))
    book.client(b"a X\r\n", to_client(MUST))
    book.client(b"a X\r\n", to_client(MUST + TOO_MANY), LOGOUT, close("too-many-bad-commands")).run()


# --- ends: G17, G18, G27 --------------------------------------------------------------------------


def test_a_logout_that_is_not_granted() -> None:
    book = plain().asks(b"a LOGOUT\r\n", b"a BAD not now\r\n")
    book.client(b"b NOOP\r\n", to_client(b"b OK NOOP completed\r\n")).run()


@pytest.mark.parametrize("said", [b"", b"* BYE bye\r\n"])
def test_a_backend_that_leaves_before_the_logout_is_complete(said: bytes) -> None:
    book = plain().passes(b"a LOGOUT\r\n")
    if said:
        book.returns(said)
    ours = b"" if said else b"* BYE logging out\r\n"
    book.ended(Side.BACKEND, True, to_client(ours + b"a OK LOGOUT completed\r\n"), close("quit")).run()


def test_a_backend_that_leaves_within_its_last_line() -> None:
    book = plain().passes(b"a LOGOUT\r\n").backend(b"* BY")
    book.ended(Side.BACKEND, True, ABORT_BACKEND, close("backend-lost")).run()


@pytest.mark.parametrize("said", [b"* CAPABILITY IMAP4 STARTTLS LOGINDISABLED\r\n", b"* CAPAB", b"a O"])
def test_g17_the_backend_is_lost_within_a_reply(said: bytes) -> None:
    book = plain().passes(b"a CAPABILITY\r\n")
    book.backend(said, *([to_client(said)] if said.endswith(b"\n") else []))
    book.ended(Side.BACKEND, True, ABORT_BACKEND, close("backend-lost")).run()


def test_g17_the_backend_is_lost_within_a_literal() -> None:
    book = inside().asks(b"a ID NIL\r\n", b'* ID ("x" {9}\r\nabc')
    book.ended(Side.BACKEND, True, ABORT_BACKEND, close("backend-lost")).run()


def test_the_backend_leaves_after_a_complete_reply() -> None:
    book = plain().asks(b"a CAPABILITY\r\n", b"* CAPABILITY X STARTTLS LOGINDISABLED\r\na OK\r\n")
    book.ended(Side.BACKEND, True, to_client(LOST), ABORT_BACKEND, close("backend-closed")).run()


def test_after_its_own_goodbye_ours_is_not_needed() -> None:
    book = plain().returns(b"* BYE Autologout\r\n")
    book.ended(Side.BACKEND, True, ABORT_BACKEND, close("backend-closed")).run()


def test_g18_the_client_is_lost_within_a_login() -> None:
    asked = inside().passes(b"a LOGIN u p\r\n")
    asked.ended(Side.CLIENT, True).returns(b"a NO\r\n", LOGOUT, close("client-closed")).run()
    literal = inside().asks(b"a LOGIN {3}\r\n", b"+ \r\n").passes(b"jo")
    literal.ended(Side.CLIENT, True, ABORT_BACKEND, close("client-lost")).run()


# --- lazy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_lazy_answers_for_itself_before_tls(policy: Policy) -> None:
    listed = b"IMAP4rev1 STARTTLS" + (b"" if policy is Policy.OPTIONAL else b" LOGINDISABLED")
    book = lazy(policy).client(
        b"a CAPABILITY\r\n", to_client(b"* CAPABILITY %s\r\na OK CAPABILITY completed\r\n" % listed)
    )
    book.client(b"a NOOP\r\n", to_client(b"a OK NOOP completed\r\n"))
    book.client(b"a ID NIL\r\n", to_client(b"* ID NIL\r\na OK ID completed\r\n"))
    book.client(b"a LOGOUT\r\n", to_client(b"* BYE logging out\r\na OK LOGOUT completed\r\n"), close("quit")).run()


def test_lazy_logout_inside_tls_needs_no_backend() -> None:
    lazy().client(b"s STARTTLS\r\n", tls(b"s OK Begin TLS negotiation now\r\n")).secured().client(
        b"a LOGOUT\r\n", to_client(b"* BYE logging out\r\na OK LOGOUT completed\r\n"), close("quit")
    ).run()


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "literal"),
    [
        (b"a b {0}", Literal(0, True)),
        (b"a b {007+}", Literal(7, False)),
        (b"a b ~{5}", Literal(5, True)),
        (b'a "x" {5}', Literal(5, True)),
        (b'a "\\\\" {5}', Literal(5, True)),
        (b'a "\\"" {5}', Literal(5, True)),
        (b"a b}", None),
        (b"a b{c", None),
        (b'a "{5}', Malformed),
        (b'a "{5} "', None),
        (b"a {5} ", Malformed),
        (b"a {5}x", Malformed),
        (b"", None),
    ],
)
def test_announcements(line: bytes, literal: Literal | type[Malformed] | None) -> None:
    if literal is Malformed:
        with pytest.raises(Malformed):
            literal_of(line)
    else:
        assert literal_of(line) == literal


# --- properties -----------------------------------------------------------------------------------

# The backend says one line at a time: whether its second line or the client's waiting command comes
# first is no matter of cutting.
