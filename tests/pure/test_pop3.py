"""POP3: every command under every policy, and the rows P and G of docs/conformance.md that need no sockets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import conversation, sasl
from gateway.dialects.base import Policy
from gateway.dialects.mail.pop3 import DIALECT
from gateway.dialects.mail.pop3.words import ADDED, edit_capabilities, edit_greeting
from gateway.protocol.vocabulary import Close, Side
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    PROVEN,
    REJECTED,
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

POLICIES = tuple(Policy)
MUST = b"-ERR [SYS/PERM] Must issue a STLS command first\r\n"
UNKNOWN = b"-ERR Unknown command\r\n"
UNAVAILABLE = b"-ERR [SYS/TEMP] Service temporarily unavailable\r\n"
LOST = b"-ERR [SYS/TEMP] Connection to mail server lost\r\n"
TOO_MANY = b"-ERR Too many invalid commands\r\n"
INVALID = b"-ERR Invalid arguments\r\n"
OWN_LIST = b"+OK Capability list follows\r\nSTLS\r\n.\r\n"
GO_AHEAD = b"+OK Begin TLS negotiation now\r\n"
QUIT = to_backend(b"QUIT\r\n")

OFFERED = (
    b"+OK\r\nCAPA\r\nTOP\r\nUIDL\r\nSTLS\r\nUSER\r\nSASL PLAIN SCRAM-SHA-1 SCRAM-SHA-1-PLUS EXTERNAL\r\nXCLIENT\r\n"
)


def plain(policy: Policy = Policy.REQUIRED, **changes: object) -> Playbook:
    """A plaintext port, greeted."""
    return Playbook(DIALECT, terms(policy=policy, **changes)).start(DIAL).dialled().returns(b"+OK ready\r\n")


def inside(policy: Policy = Policy.REQUIRED, **changes: object) -> Playbook:
    """The same after STLS."""
    return plain(policy, **changes).client(b"STLS\r\n", tls(GO_AHEAD)).secured()


def lazy(policy: Policy = Policy.REQUIRED) -> Playbook:
    return Playbook(DIALECT, terms(policy=policy, lazy=True)).start(to_client(b"+OK gw.example.org ready\r\n"))


# --- the transcript, P01 --------------------------------------------------------------------------


def test_p01_the_sample_session() -> None:
    listed = b"+OK\r\nCAPA\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nPIPELINING\r\nAUTH-RESP-CODE\r\n"
    book = Playbook(DIALECT).start(DIAL).dialled()
    book.backend(
        b"+OK [XCLIENT] legacy ready <1896.697170952@legacy.example.org>\r\n",
        to_client(b"+OK legacy ready <1896.697170952@legacy.example.org>\r\n"),
    )
    book.passes(b"CAPA\r\n")
    book.backend(listed + b"STLS\r\nUSER\r\nSASL PLAIN LOGIN EXTERNAL\r\n.\r\n", to_client(listed + b"STLS\r\n.\r\n"))
    book.client(b"USER joe\r\n", to_client(MUST))
    book.client(b"STLS\r\n", tls(GO_AHEAD)).secured()
    book.passes(b"CAPA\r\n")
    book.backend(
        listed + b"STLS\r\nUSER\r\nSASL PLAIN LOGIN EXTERNAL\r\n.\r\n",
        to_client(listed + b"USER\r\nSASL PLAIN LOGIN\r\n.\r\n"),
    )
    book.client(b"STLS\r\n", to_client(b"-ERR Command not permitted when TLS active\r\n"))
    book.asks(b"USER joe\r\n", b"+OK\r\n")
    book.asks(b"PASS secret\r\n", b"+OK Logged in.\r\n", note("auth", result="ok", mechanism="USER"), PROVEN, SPLICE)
    book.run()
    assert book.proven == 1


# --- commands before TLS, 4.2 ---------------------------------------------------------------------

FORWARD = b"(forwarded)"
NO_ARGUMENTS = b"-ERR STLS takes no arguments\r\n"

COMMANDS = [
    (b"CAPA\r\n", FORWARD, FORWARD, FORWARD),
    (b"capa\r\n", FORWARD, FORWARD, FORWARD),
    (b"CAPA x\r\n", INVALID, INVALID, INVALID),
    (b"QUIT\r\n", FORWARD, FORWARD, FORWARD),
    (b"QUIT x\r\n", INVALID, INVALID, INVALID),
    (b"STLS now\r\n", NO_ARGUMENTS, NO_ARGUMENTS, NO_ARGUMENTS),
    (b"STLS  now \r\n", NO_ARGUMENTS, NO_ARGUMENTS, NO_ARGUMENTS),
    *(
        (line, MUST, MUST, FORWARD)
        for line in (b"USER joe\r\n", b"user  joe \r\n", b"PASS x\r\n", b"APOP joe 0123\r\n")
    ),
    *((line, MUST, MUST, FORWARD) for line in (b"AUTH\r\n", b"AUTH PLAIN\r\n", b"auth plain AGEAYg==\r\n")),
    (b"AUTH EXTERNAL =\r\n", MUST, MUST, b"-ERR Unsupported authentication mechanism\r\n"),
    *((line, UNKNOWN, UNKNOWN, UNKNOWN) for line in (b"XCLIENT ADDR=1.2.3.4\r\n", b"xoip 1.2.3.4\r\n", b"XCLIENT\r\n")),
    *((line, UNKNOWN, UNKNOWN, UNKNOWN) for line in (b" XCLIENT\r\n", b"XCLIENT\tADDR=1\r\n", b"\r\n", b"\xe4\r\n")),
    *((line, MUST, FORWARD, FORWARD) for line in (b"NOOP\r\n", b"LANG\r\n", b"LANG de\r\n", b"UTF8\r\n")),
    *((line, MUST, FORWARD, FORWARD) for line in (b"STAT\r\n", b"DELE 1\r\n", b"FOO BAR\r\n")),
    (b"NOOP\0\r\n", *(b"-ERR Invalid characters\r\n",) * 3),
    (b"NOOP\rXCLIENT ADDR=1.2.3.4 LOGIN=root\r\n", *(b"-ERR Invalid characters\r\n",) * 3),
    (b"CAPA" + b" " * 509 + b"\r\n", *(b"-ERR Command too long\r\n",) * 3),
]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: repr(row[0][:40]))
def test_every_command_before_tls(row: tuple[bytes, ...], policy: Policy) -> None:
    sent, outcome = row[0], row[1 + POLICIES.index(policy)]
    if outcome is FORWARD:
        plain(policy).passes(sent).run()
    else:
        plain(policy).client(sent, to_client(outcome)).run()


@pytest.mark.parametrize("policy", POLICIES)
def test_stls_before_tls(policy: Policy) -> None:
    plain(policy).client(b"stls\n", tls(GO_AHEAD)).run()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("reply", [b"-ERR what\r\n", b"+ERR what\r\n"])
def test_p02_a_backend_without_capa(policy: Policy, reply: bytes) -> None:
    plain(policy).passes(b"CAPA\r\n").backend(reply, to_client(OWN_LIST)).ended(
        Side.CLIENT, True, QUIT, close("client-closed")
    ).run()
    inside(policy).asks(b"CAPA\r\n", reply).run()


# --- the switch: G05 to G10, G14, P05, P07 --------------------------------------------------------


def test_g10_stls_with_an_argument_inside_tls() -> None:
    inside().client(b"STLS now\r\n", to_client(b"-ERR Command not permitted when TLS active\r\n")).run()


def test_p07_g28_stls_after_user() -> None:
    """A refused password clears the name; nothing clears UTF8."""
    book = plain(Policy.OPTIONAL).asks(b"USER joe\r\n", b"+OK\r\n")
    book.client(b"STLS\r\n", to_client(b"-ERR STLS not permitted in this state\r\n"))
    book.asks(b"USER jim\r\n", b"-ERR\r\n")
    book.client(b"STLS\r\n", to_client(b"-ERR STLS not permitted in this state\r\n"))
    book.asks(b"PASS x\r\n", b"-ERR\r\n")
    book.client(b"STLS\r\n", tls(GO_AHEAD)).run()
    plain(Policy.OPTIONAL).asks(b"USER joe\r\n", b"-ERR\r\n").client(b"STLS\r\n", tls(GO_AHEAD)).run()
    book = plain(Policy.AUTH_ONLY).asks(b"UTF8\r\n", b"+OK\r\n")
    book.asks(b"UTF8\r\n", b"-ERR\r\n")
    book.client(b"STLS\r\n", to_client(b"-ERR STLS not permitted in this state\r\n")).run()


def test_p05_apop() -> None:
    book = inside().asks(b"APOP joe 0123\r\n", b"-ERR no\r\n")
    book.asks(b"APOP joe 0124\r\n", b"+OK in\r\n", PROVEN, SPLICE).run()
    assert [dict(each.fields) for each in book.notes] == [
        {"result": "failed", "mechanism": "APOP", "user": b"joe"},
        {"result": "ok", "mechanism": "APOP", "user": b"joe"},
    ]


# --- greetings: G01 to G04 ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"+OK hello", b"+OK hello"),
        (b"+ok", b"+ok"),
        (b"+OK [XCLIENT] Dovecot ready.", b"+OK Dovecot ready."),
        (b"+OK [xclient]", b"+OK"),
        (b"+OK  [XCLIENT]  [XCLIENT] x", b"+OK x"),
        (b"+OK [XCLIENTS] x", b"+OK [XCLIENTS] x"),
    ],
)
def test_p08_greetings(said: bytes, told: bytes) -> None:
    assert edit_greeting(edit_greeting(said)) == edit_greeting(said)
    Playbook(DIALECT).start(DIAL).dialled().backend(said + b"\n", to_client(told + b"\r\n")).run()


# --- logins: G11, G12, P03, P04, P06 --------------------------------------------------------------


def test_p03_the_list_of_a_bare_auth_is_edited() -> None:
    listed = b"+OK\r\nPLAIN\r\nSCRAM-SHA-1\r\nSCRAM-SHA-1-PLUS\r\n external \r\n.\r\n"
    inside().passes(b"AUTH\r\n").backend(listed, to_client(b"+OK\r\nPLAIN\r\n.\r\n")).run()
    plain(Policy.OPTIONAL).asks(b"auth \r\n", b"+OK\r\nLOGIN\r\n.\r\n").run()
    inside().asks(b"AUTH\r\n", b"-ERR what\r\n").run()


@pytest.mark.parametrize("more", [b"+ ", b"+", b"+Go ahead", b"+ T0sgdGhlbg=="])
def test_p04_continuations(more: bytes) -> None:
    book = inside().asks(b"AUTH PLAIN\r\n", more + b"\r\n")
    book.asks(b"XCLIENT\r\n", more + b"\r\n")
    book.asks(b"\r\n", b"+OK in\r\n", note("auth", result="ok", mechanism="PLAIN"), PROVEN, SPLICE).run()


def test_a_response_that_is_none_cancels_the_exchange() -> None:
    """A server that splits long lines would find a command in it."""
    book = inside().asks(b"AUTH PLAIN\r\n", b"+ \r\n")
    book.client(b"A" * 512 + b"XCLIENT ADDR=1.2.3.4\r\n", to_backend(b"*\r\n"))
    book.returns(b"-ERR cancelled\r\n").run()


def test_an_exchange_that_fails() -> None:
    book = inside().asks(b"AUTH login\r\n", b"+ \r\n")
    book.asks(b"*\r\n", b"-ERR cancelled\r\n")
    book.asks(b"AUTH login eA==\r\n", b"-ERR no\r\n").run()
    told = {"result": "failed", "mechanism": "LOGIN"}
    assert [dict(each.fields) for each in book.notes] == [told, {**told, "user": b"x"}]
    assert book.rejected == 1


@pytest.mark.parametrize("line", [b"\0", b"x\ry", b"x" * 65537])
def test_a_response_that_is_not_forwarded_cancels_the_exchange(line: bytes) -> None:
    book = inside().asks(b"AUTH PLAIN\r\n", b"+ \r\n").client(line + b"\r\n", to_backend(b"*\r\n"))
    book.returns(b"-ERR cancelled\r\n").run(cuts=(WHOLE, 1000))


def test_a_verdict_may_come_while_a_response_is_awaited() -> None:
    book = inside().asks(b"AUTH PLAIN\r\n", b"+ \r\n").returns(b"-ERR slow\r\n")
    book.asks(b"NOOP\r\n", b"+OK\r\n").run()


@pytest.mark.parametrize("words", [b" EXTERNAL", b'"EXTERNAL"', b"EXTERNAL\t=", b"\tEXTERNAL"])
def test_a_mechanism_is_a_bare_word(words: bytes) -> None:
    inside().client(b"AUTH " + words + b"\r\n", to_client(INVALID)).run()


@pytest.mark.parametrize(
    "words",
    [
        *(b"EXTERNAL", b"external =", b"SCRAM-SHA-1-PLUS", b"Gs2-Krb5-Plus abc"),
        *(b"EXTERNAL\t", b"EXTERNAL \t", b"EXTERNAL = ", b"X-PLUS\t"),
    ],
)
def test_g12_T04_what_is_said_to_mechanisms_that_would_authenticate_the_gateway(words: bytes) -> None:
    inside().client(b"AUTH " + words + b"\r\n", to_client(b"-ERR Unsupported authentication mechanism\r\n")).run()


def test_a_login_that_fails_leaves_the_rest_inspected() -> None:
    book = inside().client(b"PASS x\r\nSTLS\r\n", to_backend(b"PASS x\r\n"))
    book.backend(b"-ERR no\r\n", to_client(b"-ERR no\r\n-ERR Command not permitted when TLS active\r\n"))
    book.asks(b"PASS x\r\n", b"+ERR database\r\n").run()
    assert [dict(each.fields)["result"] for each in book.notes] == ["failed", "failed"]


def test_under_optional_a_login_in_the_clear_is_spliced() -> None:
    plain(Policy.OPTIONAL).asks(b"USER joe\r\n", b"+OK\r\n").asks(
        b"PASS  a b \r\n", b"+OK in\r\n", PROVEN, SPLICE
    ).run()


# --- trials with real servers: T04, T09, T11 ------------------------------------------------------


@pytest.mark.parametrize("blanks", [b" ", b"   ", b"\t", b" \t "], ids=repr)
def test_T04_blanks_behind_a_command_change_nothing(blanks: bytes) -> None:
    for policy in POLICIES:
        for command in (b"CAPA", b"capa"):
            plain(policy).passes(command + blanks + b"\r\n").backend(
                OFFERED[:5] + b".\r\n", to_client(b"+OK\r\nSTLS\r\n.\r\n")
            ).run()
        plain(policy).client(b"Stls" + blanks + b"\r\n", tls(GO_AHEAD)).run()
        plain(policy).asks(b"QUIT" + blanks + b"\r\n", b"+OK bye\r\n", close("quit")).run()
    for line in (b"NOOP", b"LANG en", b"UTF8", b"RSET", b"AUTH PLAIN"):
        plain(Policy.OPTIONAL).asks(line + blanks + b"\r\n", b"-ERR no\r\n").run()
        inside().asks(line + blanks + b"\r\n", b"-ERR no\r\n").run()
    inside().passes(b"CAPA" + blanks + b"\r\n").backend(
        b"+OK\r\nSTLS\r\nTOP\r\n.\r\n", to_client(b"+OK\r\nTOP\r\n.\r\n")
    ).run()
    inside().passes(b"AUTH" + blanks + b"\r\n").backend(
        b"+OK\r\nEXTERNAL\r\nPLAIN\r\n.\r\n", to_client(b"+OK\r\nPLAIN\r\n.\r\n")
    ).run()
    inside().asks(b"LANG" + blanks + b"\r\n", b"+OK\r\nen English\r\n.\r\n").run()
    inside().asks(b"QUIT" + blanks + b"\r\n", b"+OK bye\r\n", close("quit")).run()
    active = to_client(b"-ERR Command not permitted when TLS active\r\n")
    inside().client(b"STLS" + blanks + b"\r\n", active).run()
    lazy().client(b"CAPA" + blanks + b"\r\n", to_client(OWN_LIST)).client(
        b"STLS" + blanks + b"\r\n", tls(GO_AHEAD)
    ).run()
    lazy().client(b"QUIT" + blanks + b"\r\n", to_client(b"+OK\r\n"), close("quit")).run()


@pytest.mark.parametrize("blanks", [b" ", b"\t", b" \t "], ids=repr)
def test_T04_blanks_behind_a_response_are_no_part_of_it(blanks: bytes) -> None:
    book = inside().asks(b"AUTH PLAIN AGEAYg==" + blanks + b"\r\n", b"-ERR no\r\n")
    book.asks(b"AUTH PLAIN =" + blanks + b"\r\n", b"+ \r\n")
    book.asks(b"AGEAYg==" + blanks + b"\r\n", b"-ERR no\r\n")
    book.asks(b"AUTH PLAIN\r\n", b"+ \r\n")
    book.asks(b"*" + blanks + b"\r\n", b"-ERR cancelled\r\n")
    book.client(b"AUTH PLAIN *" + blanks + b"\r\n", to_client(INVALID)).run()
    assert book.rejected == 2


def test_T04_blanks_of_a_name_and_a_password_are_theirs() -> None:
    book = inside().asks(b"USER joe \r\n", b"+OK\r\n")
    book.asks(b"PASS  x \t\r\n", b"-ERR no\r\n")
    book.asks(b"PASS \r\n", b"-ERR no\r\n").run()


TOKEN = b"eHh4" * 3072
"""12,288 octets, as RFC 4954 4 has it."""


@pytest.mark.parametrize("mechanism", [b"XOAUTH2", b"OAUTHBEARER", b"x" * 40])
def test_T09_an_initial_response_of_12288_octets_passes(mechanism: bytes) -> None:
    line = b"AUTH " + mechanism + b" " + TOKEN + b"\r\n"
    for book in (inside(), plain(Policy.OPTIONAL)):
        book.asks(line, b"+OK in\r\n", PROVEN, SPLICE).run(cuts=(WHOLE, 1000))
    plain().client(line, to_client(MUST)).run(cuts=(WHOLE, 1000))


def test_T09_a_response_of_65536_octets_passes_and_so_does_a_challenge() -> None:
    """Tickets of Kerberos are longer than RFC 4954's figure, on both sides."""
    long = b"eHh4" * 16384 + b"\r\n"
    book = inside().asks(b"AUTH GSSAPI\r\n", b"+ \r\n")
    book.asks(long, b"+ " + long[2:])
    book.asks(b"eHh4\r\n", b"+OK in\r\n", PROVEN, SPLICE)
    book.run(cuts=(WHOLE, 1000))
    inside().asks(b"AUTH GSSAPI eHh4\r\n", b"+ " + long[2:]).passes(b"*\r\n").run((WHOLE, 1000))


@pytest.mark.parametrize(
    "line",
    [
        b"AUTH PLAIN " + b"x" * (sasl.REQUEST_LINE - 10),
        b"AUTH PLAIN " + b"x" * 501 + b" XCLIENT ADDR=1.2.3.4",
        b"AUTH" + b" " * 509,
        b"AUTHX " + b"x" * 507,
        b"USER " + b"x" * 508,
        b"PASS " + b"x" * 60_000,
        b"CAPA" + b" " * 509,
        b"STLS" + b" " * 509,
        b"\xe4" * 513,
    ],
    ids=lambda line: repr(line[:30]),
)
def test_T09_a_line_whose_end_is_known_is_answered_and_the_session_goes_on(line: bytes) -> None:
    for book in (inside(), plain(Policy.OPTIONAL)):
        book.client(
            line + b"\r\nNOOP\r\n",
            note("client-line-too-long"),
            to_client(b"-ERR Command too long\r\n"),
            to_backend(b"NOOP\r\n"),
        ).run(cuts=(WHOLE, 1000))


NTLM_1 = b"TlRMTVNTUAABAAAAB4IIogAAAAAAAAAAAAAAAAAAAAAFASgKAAAADw==\r\n"
NTLM_2 = b"+ TlRMTVNTUAACAAAABAAEADgAAAAFgoqinziKqGYjdlE=\r\n"
NTLM_3 = b"TlRMTVNTUAADAAAAGAAYAGIAAAAYABgAegAAAAAAAABIAAAACAAIAEgAAAA=\r\n"
GO_ON = [b"+OK\r\n", b"+OK go on\r\n", b"+ok\r\n", b"+OK NTLM supported\r\n"]


@pytest.mark.parametrize("go_ahead", [*GO_ON, b"+ \r\n", b"+ OK\r\n", b"+\r\n"])
@pytest.mark.parametrize("command", [b"AUTH NTLM\r\n", b"auth ntlm \r\n", b"AUTH MSN\r\n", b"AUTH NTLM =\r\n"])
def test_T11_exchanges_go_ahead_is_no_success(command: bytes, go_ahead: bytes) -> None:
    book = inside().asks(command, go_ahead).asks(NTLM_1, NTLM_2)
    mechanism = command.split()[1].decode().upper()
    book.asks(
        NTLM_3, b"+OK User successfully logged on.\r\n", note("auth", result="ok", mechanism=mechanism), PROVEN, SPLICE
    ).run()
    assert (book.proven, len(book.notes)) == (1, 1)


@pytest.mark.parametrize("go_ahead", GO_ON)
@pytest.mark.parametrize(
    "mechanism", [b"NTLM", b"PLAIN", b"LOGIN", b"CRAM-MD5", b"GSSAPI", b"XOAUTH2", b"ANONYMOUS", b"X-ZIMBRA", b"SKEY"]
)
def test_T11_no_mechanism_succeeds_before_the_client_has_said_anything(mechanism: bytes, go_ahead: bytes) -> None:
    """What is wrong then is a login that failed, and counts."""
    book = inside().asks(b"AUTH " + mechanism + b"\r\n", go_ahead)
    book.asks(b"eHh4\r\n", b"-ERR Logon failure\r\n")
    book.asks(b"NOOP\r\n", b"+OK\r\n").client(b"XCLIENT ADDR=1.2.3.4\r\n", to_client(UNKNOWN)).run()
    assert (book.proven, book.rejected) == (0, 1)
    assert [dict(each.fields)["result"] for each in book.notes] == ["failed"]


@pytest.mark.parametrize("mechanism", [b"NTLM", b"PLAIN", b"ANONYMOUS"])
def test_T11_data_in_the_command_can_succeed_at_once(mechanism: bytes) -> None:
    line = b"AUTH " + mechanism + b" eHh4\r\n"
    inside().asks(line, b"+OK\r\n", PROVEN, SPLICE).run()


@pytest.mark.parametrize("opening", [b"AUTH ANONYMOUS =\r\n", b"AUTH anonymous = \r\n"])
def test_T11_an_empty_response_is_a_whole_login_in_ANONYMOUS(opening: bytes) -> None:
    """RFC 4505 2."""
    end = (note("auth", result="ok", mechanism="ANONYMOUS"), PROVEN, to_client(b"+OK\r\n"), SPLICE)
    inside().passes(opening).backend(b"+OK\r\n", *end).run()
    book = inside().asks(b"AUTH ANONYMOUS\r\n", b"+ \r\n")
    book.passes(b"\r\n").backend(b"+OK\r\n", *end).run()


@pytest.mark.parametrize("nothing", [b"\r\n", b"=\r\n"])
def test_T11_an_empty_response_proves_nothing_elsewhere(nothing: bytes) -> None:
    book = inside().asks(b"AUTH PLAIN\r\n", b"+ \r\n")
    book.asks(nothing, b"+OK\r\n").asks(b"AGEAYg==\r\n", b"-ERR no\r\n").run()
    assert book.proven == 0


@pytest.mark.parametrize("command", [b"NOOP", b"quit ", b"CAPA", b"Utf8", b"LANG", b"STLS", b"AUTH"])
def test_T11_a_command_is_no_proof_where_the_go_ahead_was_none(command: bytes) -> None:
    """A backend that says +OK to whatever it does not know would let anybody in with two lines."""
    book = inside().asks(b"AUTH NTLM\r\n", b"+OK\r\n")
    book.asks(command + b"\r\n", b"+OK\r\n")
    book.asks(command + b"\r\n", b"-ERR\r\n")
    book.client(b"XCLIENT ADDR=1.2.3.4\r\n", to_client(UNKNOWN)).run()
    assert book.proven == 0


@pytest.mark.parametrize("opening", [b"AUTH NTLM\r\n", b"AUTH NTLM eHh4\r\n"])
@pytest.mark.parametrize("line", [b"*\r\n", b"XCLIENT ADDR=1.2.3.4\r\n", b"\0\r\n", b"x" * 65537 + b"\r\n"], ids=len)
def test_T11_who_takes_his_word_back_is_not_in(line: bytes, opening: bytes) -> None:
    """Whatever the backend says to the asterisk."""
    book = inside().asks(opening, b"+ \r\n").client(line, to_backend(b"*\r\n"))
    book.returns(b"+OK cancelled\r\n", note("auth", result="failed"))
    book.asks(b"NOOP\r\n", b"+OK\r\n").run(cuts=(WHOLE, 1000))
    assert book.proven == 0


def test_T11_a_success_that_comes_unasked_is_none() -> None:
    book = inside().asks(b"AUTH PLAIN\r\n", b"+ \r\n").returns(b"+OK in\r\n")
    book.asks(b"AGEAYg==\r\n", b"-ERR no\r\n").run()
    assert (book.proven, book.rejected) == (0, 1)


def test_T11_a_session_that_ends_in_a_dialogue_says_nothing_like_a_response() -> None:
    book = inside().asks(b"AUTH NTLM\r\n", b"+OK\r\n")
    book.ended(Side.CLIENT, True, ABORT_BACKEND, close("client-lost")).run()
    book = inside().asks(b"AUTH NTLM\r\n", b"+OK\r\n")
    book.ended(Side.BACKEND, True, *aborts("backend-lost", LOST)).run()


# --- replies --------------------------------------------------------------------------------------


def test_lists_of_languages() -> None:
    inside().asks(b"LANG\r\n", b"+OK languages\r\nen English\r\n.\r\n").run()
    inside().asks(b"LANG de\r\n", b"+OK auf Deutsch\r\n").run()
    inside().asks(b"LANG\r\n", b"-ERR what\r\n").run()


@pytest.mark.parametrize("refusal", [b"-", b"-err no", b"-ERROR no", b"- no", b"-NO such user"])
def test_whatever_begins_with_a_minus_is_a_refusal(refusal: bytes) -> None:
    """However the rest is spelled, nobody would take it for a success."""
    refusal += b"\r\n"
    book = inside().asks(b"PASS x\r\n", refusal, note("auth", result="failed"), REJECTED)
    book.asks(b"NOOP\r\n", b"+OK\r\n").run()
    assert book.rejected == 1
    plain().passes(b"CAPA\r\n").backend(refusal, to_client(OWN_LIST)).run()
    book = Playbook(DIALECT, terms()).start(DIAL).dialled()
    book.returns(refusal, note("backend-refused"), close("backend-refused")).run()


def test_lines_that_nobody_asked_for_are_relayed() -> None:
    """As Qpopper says a second line after a failed login."""
    book = inside().asks(b"PASS x\r\n", b"-ERR no\r\n+OK signing off\r\n")
    book.ended(Side.BACKEND, True, *aborts("backend-closed")).run()


@pytest.mark.parametrize("line", [b"", b"OK", b"* OK", b".", b"x" * 8193])
def test_lines_that_mean_nothing_end_the_session(line: bytes) -> None:
    book = inside().passes(b"STAT\r\n")
    book.backend(
        line + b"\r\n",
        *aborts("backend-protocol-error", UNAVAILABLE),
    ).run()


@pytest.mark.parametrize("flood", [b"TOP\r\n" * 1001, (b"X" * 8000 + b"\r\n") * 34])
def test_a_list_without_measure(flood: bytes) -> None:
    stage = Stage(DIALECT, terms())
    stage.take(stage.negotiation.start())
    stage.take(stage.negotiation.dialled())
    stage.receive(Side.BACKEND, b"+OK hi\r\n")
    stage.receive(Side.CLIENT, b"CAPA\r\n")
    stage.receive(Side.BACKEND, b"+OK\r\n" + flood)
    assert stage.negotiation.over
    assert stage.deeds[-1] == Close("backend-protocol-error", "a reply without end")


S = conversation.Stage


@pytest.mark.parametrize(
    ("line", "stage", "told"),
    [
        (b"stls", S.SECURE, None),
        (b"XCLIENT", S.OPEN, None),
        (b"USER", S.CLOSED, None),
        (b"USER", S.OPEN, b"USER"),
        (b"SASL PLAIN", S.CLOSED, None),
        (b"SASL  PLAIN  LOGIN ", S.SECURE, b"SASL  PLAIN  LOGIN "),
        (b"sasl  plain  external ", S.SECURE, b"sasl plain"),
        (b"SASL EXTERNAL", S.SECURE, None),
        (b"SASL", S.SECURE, None),
        (b"IMPLEMENTATION STLS-USER SASL", S.CLOSED, b"IMPLEMENTATION STLS-USER SASL"),
        (b"", S.CLOSED, b""),
    ],
)
def test_edited_lines(line: bytes, stage: conversation.Stage, told: bytes | None) -> None:
    assert edit_capabilities([line], stage) == ([] if told is None else [told])


LISTS = st.lists(
    st.lists(
        st.sampled_from(b"STLS USER user SASL sasl PLAIN EXTERNAL SCRAM-SHA-1 SCRAM-SHA-1-PLUS TOP XCLIENT".split())
    ).map(b" ".join)
    | st.binary(max_size=8)
)


@given(LISTS, st.sampled_from(list(ADDED)))
def test_rewriting_twice_is_rewriting_once(lines: list[bytes], stage: conversation.Stage) -> None:
    once = [*edit_capabilities(lines, stage), *ADDED[stage]]
    assert [*edit_capabilities(once, stage), *ADDED[stage]] == once
    told = sasl.usable(lines)
    assert sasl.usable(told) == told


# --- bad commands, bad octets, other protocols: G20, G21, G25 -------------------------------------


def test_bad_commands_in_a_row() -> None:
    """The backend's -ERR counts like ours, but not to a login; a success begins anew, but not NOOP's."""
    book = inside(bad_commands=3).client(b"XCLIENT\r\n", to_client(UNKNOWN))
    book.asks(b"FOO\r\n", b"-ERR what\r\n")
    book.asks(b"LANG en\r\n", b"+OK\r\n")
    for _ in range(2):
        book.asks(b"USER x\r\n", b"-ERR\r\n")
        book.asks(b"PASS x\r\n", b"-ERR\r\n")
    book.client(b"\r\n", to_client(UNKNOWN))
    book.asks(b"noop\r\n", b"+OK\r\n")
    book.asks(b"NOOPS\r\n", b"-ERR\r\n")
    book.client(b"\0\r\n", to_client(b"-ERR Invalid characters\r\n" + TOO_MANY), QUIT, close("too-many-bad-commands"))
    book.run()


def test_a_list_and_tls_are_successes() -> None:
    book = plain(bad_commands=2).client(b"USER x\r\n", to_client(MUST))
    book.passes(b"CAPA\r\n").backend(b"-ERR\r\n", to_client(OWN_LIST)).client(b"USER x\r\n", to_client(MUST))
    book.passes(b"CAPA\r\n").backend(b"+OK\r\n.\r\n", to_client(b"+OK\r\nSTLS\r\n.\r\n")).client(
        b"USER x\r\n", to_client(MUST)
    )
    book.client(b"STLS\r\n", tls(GO_AHEAD)).secured().client(b"\r\n", to_client(UNKNOWN))
    book.asks(b"USER x\r\n", b"+OK\r\n").client(b"\r\n", to_client(UNKNOWN))
    book.client(b"\r\n", to_client(UNKNOWN + TOO_MANY), QUIT, close("too-many-bad-commands")).run()


def test_g20_a_line_of_513_octets_is_too_long() -> None:
    inside().client(
        b"x" * 513 + b"\r\nNOOP\r\n",
        note("client-line-too-long"),
        to_client(b"-ERR Command too long\r\n"),
        to_backend(b"NOOP\r\n"),
    ).run()


# --- ends: G17, G18, G27, P09 ---------------------------------------------------------------------


def test_a_quit_that_is_not_granted() -> None:
    book = inside().asks(b"QUIT now\r\n", b"-ERR no arguments\r\n")
    book.asks(b"NOOP\r\n", b"+OK\r\n").run()


def test_the_backend_is_lost_during_quit() -> None:
    asked = plain().passes(b"QUIT\r\n")
    asked.ended(Side.BACKEND, True, to_client(b"+OK\r\n"), close("quit")).run()
    asked = plain().passes(b"QUIT\r\n").backend(b"+O")
    asked.ended(Side.BACKEND, True, ABORT_BACKEND, close("backend-lost")).run()


def test_g17_the_backend_is_lost_within_a_list() -> None:
    book = plain().passes(b"CAPA\r\n")
    book.backend(b"+OK\r\nTOP\r\nSTLS\r\nUI", to_client(b"+OK\r\n"))
    book.ended(Side.BACKEND, True, to_client(b"TOP\r\n"), ABORT_BACKEND, close("backend-lost")).run()


def test_g18_the_client_is_lost_within_a_dialogue() -> None:
    exchange = inside().asks(b"AUTH PLAIN\r\n", b"+ \r\n")
    exchange.ended(Side.CLIENT, True, ABORT_BACKEND, close("client-lost")).run()


# --- lazy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_lazy_answers_for_itself_before_tls(policy: Policy) -> None:
    book = lazy(policy).client(b"CAPA\r\n", to_client(OWN_LIST))
    book.client(b"QUIT\r\n", to_client(b"+OK\r\n"), close("quit")).run()


# --- values and properties ------------------------------------------------------------------------


# The backend says one line at a time: whether its second line or the client's waiting command comes
# first is no matter of cutting.
