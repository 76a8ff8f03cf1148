"""FTP: each command before TLS and inside, data connections, and its pure functions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import parse
from gateway.dialects import DIALECTS
from gateway.dialects.access import Access, Seen
from gateway.dialects.base import BackendTLS, Policy, port_range
from gateway.dialects.files.ftp import DIALECT, words
from gateway.dialects.files.ftp.data import MOST_OWED, TRANSFER
from gateway.protocol.vocabulary import Cut, Expired, Label, Open, Patience, Place, Side
from gateway.sessions.agreed import ChannelTerms, channel_terms, channels_each
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    LISTENING,
    PROVEN,
    REJECTED,
    SINGLE,
    WHOLE,
    Playbook,
    aborts,
    close,
    note,
    terms,
    tls,
    to_backend,
    to_client,
)

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND
SWITCH = tls(b"", BACKEND)
GREETING = b"220 ready\r\n"
GO_AHEAD = b"234 Proceed with negotiation\r\n"
FIRST = b"530 Must issue AUTH TLS first\r\n"
UNPROTECTED = b"521 Data connection cannot be opened with this PROT setting\r\n"
NO_PORT = b"425 Can't open data connection\r\n"
LOST = b"421 Connection to FTP server lost\r\n"
BYE = close("backend-closed")
OPEN = Open(CLIENT, 40000, True)
PASSIVE = b"227 Entering Passive Mode (198,51,100,1,195,81)\r\n"
EXTENDED = b"229 Entering Extended Passive Mode (|||50001|)\r\n"


def told(play: Playbook, *pairs: tuple[bytes, bytes]) -> Playbook:
    """The gateway answers these commands by itself."""
    for said, answer in pairs:
        play.client(said + b"\r\n", to_client(answer + b"\r\n"))
    return play


def asked(play: Playbook, said: bytes, answer: bytes) -> Playbook:
    """A command that goes through, and its answer, which comes back as it is."""
    return play.asks(said + b"\r\n", answer)


def opened(*, policy: Policy = Policy.REQUIRED, options: dict[str, str] | None = None, **changes: Any) -> Playbook:
    ours = {name: changes.pop(name) for name in ("place", "broken", "may_log_in", "others") if name in changes}
    agreed = terms(policy=policy, client="192.0.2.10", options=options or {}, **changes)
    return Playbook(DIALECT, agreed, **ours)


def greeted(**changes: Any) -> Playbook:
    return opened(**changes).start(DIAL).dialled().returns(GREETING)


def inside(**changes: Any) -> Playbook:
    return greeted(**changes).client(b"AUTH TLS\r\n", tls(GO_AHEAD)).secured()


def private(**changes: Any) -> Playbook:
    return told(inside(**changes), (b"PBSZ 0", b"200 PBSZ=0"), (b"PROT P", b"200 Protection set to P"))


def listens(play: Playbook, port: int = 40000, *, cut: bool = False, protected: bool = True) -> Playbook:
    """EPSV, with a port of ours."""
    play.client(b"EPSV\r\n", *([Cut()] if cut else []), to_backend(b"EPSV\r\n"))
    announced = b"229 Extended Passive mode OK (|||%d|)\r\n" % port
    return play.backend(announced, Open(CLIENT, port, protected), to_client(EXTENDED))


def begins(play: Playbook, line: bytes = b"RETR a", *more: tuple[str, object]) -> Playbook:
    label = Label((("command", line[:4].decode()), *more))
    play.client(line + b"\r\n", label, to_backend(line + b"\r\n"))
    return play.waits(TRANSFER)


# --- the control connection -----------------------------------------------------------------------------


def test_before_tls_nothing_but_what_leads_to_it() -> None:
    play = greeted()
    for command in (b"SYST", b"NOOP", b"OPTS UTF8 ON", b"HOST a", b"CLNT x"):
        asked(play, command, b"200 ok\r\n")
    told(play, (b"CWD /", FIRST[:-2]), (b"LIST", FIRST[:-2]), (b"XYZ", FIRST[:-2]))
    told(play, (b"PBSZ 0", b"503 Must issue AUTH TLS first"), (b"PROT P", b"503 Must issue AUTH TLS first"))
    told(play, (b"CCC", b"533 Control connection is not protected"), (b"MIC x", b"502 Command not implemented"))
    play.run()


def test_auth_only_keeps_back_the_login_alone() -> None:
    play = asked(greeted(policy=Policy.AUTH_ONLY), b"CWD /", b"530 log in\r\n")
    told(play, (b"USER joe", FIRST[:-2]), (b"pass x", FIRST[:-2]), (b"ACCT y", FIRST[:-2])).run()


@pytest.mark.parametrize("name", [b"TLS", b"tls-c", b"SSL", b"TLS-P"])
def test_each_name_of_tls(name: bytes) -> None:
    asked(greeted().client(b"AUTH %s\r\n" % name, tls(GO_AHEAD)).secured(), b"PWD", b"257 /\r\n").run()


def test_other_mechanisms_are_refused() -> None:
    told(
        greeted(), (b"AUTH", b"501 Syntax: AUTH mechanism"), (b"AUTH KRB5", b"504 Security mechanism not understood")
    ).run()
    told(inside(), (b"AUTH TLS", b"503 TLS already active"), (b"CCC", b"534 CCC denied")).run()


def test_what_was_said_in_the_clear_is_forgotten_with_its_connection() -> None:
    play = asked(greeted(policy=Policy.OPTIONAL), b"TYPE I", b"200 ok\r\n")
    play.asks(b"USER joe\r\n", b"331 go\r\n")
    play.client(b"AUTH TLS\r\n", tls(GO_AHEAD)).secured(to_backend(b"QUIT\r\n"), DIAL)
    asked(play.dialled().backend(GREETING), b"PASS x", b"503 USER first\r\n").run()


def test_a_fresh_connection_may_be_refused() -> None:
    play = asked(greeted(), b"HOST a", b"220 ok\r\n").client(b"AUTH TLS\r\n", tls(GO_AHEAD))
    play.secured(to_backend(b"QUIT\r\n"), DIAL).dialled()
    play.returns(b"421 full\r\n", close("backend-refused")).run()


def test_a_login_in_the_clear_ends_its_data_connection_at_auth() -> None:
    play = greeted(policy=Policy.OPTIONAL)
    listens(play, protected=False)
    play.client(b"AUTH TLS\r\n", Cut(), tls(GO_AHEAD)).secured(to_backend(b"QUIT\r\n"), DIAL).dialled().run()


def test_features_are_edited_and_made_up_where_there_are_none() -> None:
    own = b"211-Features:\r\n PBSZ\r\n PROT\r\n211 End\r\n"
    for answer in (b"500 what\r\n", b"502 no\r\n", b"211 no features\r\n"):
        inside().passes(b"FEAT\r\n").backend(answer, to_client(own)).run()
    asked(inside(), b"FEAT", b"530 log in\r\n").run()
    listed = b"211-x\r\n EPRT\r\n\r\n SIZE\r\n211 End\r\n"
    shown = b"211-x\r\n EPRT\r\n\r\n SIZE\r\n PBSZ\r\n PROT\r\n211 End\r\n"
    play = inside(options={"active": "yes"}).passes(b"FEAT\r\n")
    play.backend(listed, to_client(shown)).run()


def test_a_lazy_session_knows_its_own_features() -> None:
    own = b"211-Features:\r\n AUTH TLS\r\n PBSZ\r\n PROT\r\n211 End\r\n"
    play = opened(lazy=True).start(to_client(b"220 gw.example.org ready\r\n")).client(b"FEAT\r\n", to_client(own))
    play.client(b"QUIT\r\n", to_client(b"221 Goodbye\r\n"), close("quit")).run()


def test_telnet_commands_before_a_command_are_dropped() -> None:
    play = inside()
    lost = (b"\xff\xf4\xff", b"\xff\xf4\xf2")  # an octet of SYNCH, which was urgent data
    for telnet in (b"\xff\xf4\xff\xf2", b"\xff\xf4", b"\xff\xfd\x06", b"\xff\xf4\xff\xfb\x01", *lost):
        play.client(telnet + b"ABOR\r\n", to_backend(b"ABOR\r\n")).returns(b"225 none\r\n")
    # In the middle of a verb some servers drop them, too, and see another verb than we do.
    told(play, (b"PO\xff\xf1RT 1,2,3,4,5,6", b"500 Syntax error"), (b"\xff\xff", b"500 Syntax error")).run()


def test_what_is_no_command_never_reaches_the_backend() -> None:
    play = told(
        inside(), (b"", b"500 Syntax error"), (b" PORT x", b"500 Syntax error"), (b"PORT\tx", b"500 Syntax error")
    )
    told(play, *((verb, b"502 Command not implemented") for verb in sorted(words.REFUSED)[:5])).run()
    for verb in words.REFUSED:
        told(inside(), (verb.lower() + b" x", b"502 Command not implemented")).run()


def test_replies_of_many_lines_come_line_by_line() -> None:
    status = b"213-STAT\r\n-rw 1\r\n 213 not yet\r\n213-still\r\n211 other\r\n213 end\r\n"
    asked(asked(inside(), b"STAT /", status), b"PWD", b"257 /\r\n").run()
    play = inside().passes(b"STAT /\r\n")
    play.backend(b"213-a\r\n b", to_client(b"213-a\r\n")).ended(
        BACKEND, True, ABORT_BACKEND, close("backend-lost")
    ).run()


def test_preliminary_replies_of_any_command() -> None:
    asked(inside(), b"SITE INDEX", b"150-wait\r\n150 wait\r\n250 done\r\n").run()


def test_421_ends_the_session_whenever_it_comes() -> None:
    asked(inside(), b"PWD", b"257 /\r\n").returns(b"421-a\r\n421 b\r\n", BYE).run()
    play = inside().asks(b"PWD\r\n", b"421 bye\r\n", BYE).run()
    play = begins(listens(private()))
    play.returns(b"421 bye\r\n", BYE).run()


def test_a_greeting_may_be_put_off() -> None:
    play = opened().start(DIAL).dialled().backend(b"120 in 5 minutes\r\n")
    play.returns(b"220 now\r\n").run()


@pytest.mark.parametrize("said", [b"USER joe", b"PASS x", b"FEAT", b"QUIT"])
def test_a_reply_that_begins_with_1_is_not_the_last(said: bytes) -> None:
    play = inside().passes(said + b"\r\n").backend(b"150-wait\r\n150 wait\r\n120 a\r\n")
    play.returns(b"331 go\r\n").run()


def test_a_reply_without_end() -> None:
    play = inside().passes(b"FEAT\r\n")
    end = (to_client(b"421 Service not available, closing control connection\r\n"), ABORT_BACKEND)
    play.backend(b"211-x\r\n" * 1001, note("backend-protocol-error"), *end, close("backend-protocol-error"))
    play.run((WHOLE,))
    play = inside().passes(b"FEAT\r\n")
    play.backend(b"2" * 9000 + b"\r\n", note("backend-protocol-error"), *end, close("backend-protocol-error")).run()


def test_goodbye() -> None:
    play = inside().passes(b"QUIT\r\n")
    play.ended(BACKEND, True, to_client(b"221 Goodbye\r\n"), close("quit")).run()
    play = inside().passes(b"QUIT\r\n")
    play.ended(CLIENT, False, ABORT_BACKEND, close("client-lost")).run()
    asked(asked(inside(), b"QUIT now", b"501 what\r\n"), b"PWD", b"257 /\r\n").run()
    play = inside().passes(b"QUIT\r\n").ended(CLIENT, True)
    play.returns(b"221 bye\r\n", close("quit")).run()


# --- logins -----------------------------------------------------------------------------------------------


def test_a_login_may_want_an_account() -> None:
    play = asked(asked(inside(), b"USER joe", b"331 password\r\n"), b"PASS x", b"332 account\r\n")
    ok = note("auth", result="ok", mechanism="USER", user=b"joe")
    play.passes(b"ACCT y\r\n").backend(b"230 in\r\n", ok, PROVEN, to_client(b"230 in\r\n"))
    play.run()


def test_a_command_that_is_superfluous_proves_nothing() -> None:
    """Pure-FTPd says so to an ACCT before the login."""
    asked(asked(inside(), b"ACCT y", b"202 Please tell me who you are\r\n"), b"PWD", b"530 log in\r\n").run()


def test_only_a_refusal_of_the_password_is_a_guess() -> None:
    failed = note("auth", result="failed", mechanism="USER")
    for answer, counted in ((b"530 no\r\n", True), (b"430 no\r\n", True), (b"503 USER first\r\n", False)):
        play = inside().passes(b"PASS x\r\n")
        play.backend(answer, failed, *([REJECTED] if counted else []), to_client(answer)).run()


def test_a_server_that_demands_tls_is_told_of() -> None:
    answer = b"530 Non-anonymous sessions must use encryption.\r\n"
    play = inside().asks(b"USER joe\r\n", answer).run()
    assert [one.event for one in play.notes] == ["backend-refuses-plaintext-auth", "auth"]


# --- the level of protection --------------------------------------------------------------------------------


def test_levels() -> None:
    play = told(inside(), (b"PBSZ", b"501 Syntax: PBSZ number"), (b"PBSZ x", b"501 Syntax: PBSZ number"))
    told(
        play,
        (b"PROT S", b"536 Requested PROT level not supported"),
        (b"PROT X", b"504 Protection level not understood"),
    )
    told(play, (b"prot c", b"534 Data connection must be protected"), (b"PROT p", b"200 Protection set to P")).run()
    told(inside(options={"protection": "optional"}), (b"PROT C", b"200 Protection set to C")).run()


def test_without_prot_p_there_is_no_data() -> None:
    play = told(inside(), *((one, UNPROTECTED[:-2]) for one in (b"PASV", b"EPSV", b"LIST", b"STOR a")))
    told(play, (b"PBSZ 16384", b"200 PBSZ=0"), (b"PROT P", b"200 Protection set to P"))
    listens(play).run()
    told(inside(options={"active": "yes"}), (b"PORT 192,0,2,10,4,1", UNPROTECTED[:-2])).run()


def test_where_tls_comes_first_the_level_is_p() -> None:
    play = opened(implicit=True).start(tls(b"")).secured(DIAL).dialled().returns(GREETING)
    begins(listens(play)).run()


def test_another_level_is_another_data_connection() -> None:
    play = listens(private(options={"protection": "optional"}))
    told(play, (b"PROT P", b"200 Protection set to P"))
    play.client(b"PROT C\r\n", Cut(), to_client(b"200 Protection set to C\r\n"))
    begins(listens(play, protected=False)).run()


# --- passive mode -------------------------------------------------------------------------------------------


def test_the_address_in_the_backends_reply_is_not_used() -> None:
    for answer in (
        b"227 Entering Passive Mode (10,9,8,7,156,64)",
        b"227 ok (127,0,0,1,156,64).",
        b"227 =1,2,3,4,156,64",
        b"227 (127, 0, 0, 1, 156, 64)",
        b"229 ok (|1|10.9.8.7|40000|)",
        b"229 ok (|2|2001:db8::1|40000|)",
    ):
        play = private().passes(b"PASV\r\n")
        play.backend(answer + b"\r\n", OPEN, to_client(PASSIVE)).run()


def test_behind_a_nat_the_address_is_the_configured_one() -> None:
    play = private(options={"passive_address": "203.0.113.5"}).passes(b"PASV\r\n")
    ours = b"227 Entering Passive Mode (203,0,113,5,195,81)\r\n"
    play.backend(b"227 (1,2,3,4,156,64)\r\n", Open(CLIENT, 40000, True), to_client(ours)).run()


@pytest.mark.parametrize(
    "announced",
    [b"227 ok (1,2,3,4,0,22)", b"229 ok (|||22|)", b"229 ok (|||70000|)", b"227 ok", b"227 (1,2,3,4,5,256)"],
)
def test_no_port_of_a_server_is_dialled(announced: bytes) -> None:
    play = private().passes(b"EPSV\r\n")
    end = (to_client(b"421 Service not available, closing control connection\r\n"), ABORT_BACKEND)
    play.backend(announced + b"\r\n", note("backend-protocol-error"), *end, close("backend-protocol-error")).run()


def test_a_backend_may_know_the_other_command_only() -> None:
    for said, other, announced, ours in (
        (b"EPSV", b"PASV", b"227 ok (1,2,3,4,156,64)\r\n", EXTENDED),
        (b"PASV", b"EPSV", b"229 ok (|||40000|)\r\n", PASSIVE),
    ):
        play = private().passes(said + b"\r\n")
        play.backend(b"500 what\r\n", to_backend(other + b"\r\n")).backend(announced, OPEN, to_client(ours)).run()
        play = private().passes(said + b"\r\n")
        play.backend(b"502 no\r\n", to_backend(other + b"\r\n")).backend(b"500 no\r\n", to_client(b"502 no\r\n")).run()
    asked(private(), b"EPSV", b"530 log in\r\n").run()


def test_an_ipv4_client_that_comes_by_ipv6_has_to_use_epsv() -> None:
    for options, *answer in (
        ({}, Cut(), to_client(b"522 Use EPSV\r\n")),
        ({"passive_address": "198.51.100.1"}, to_client(PASSIVE)),
    ):
        play = private(place=Place("2001:db8::1", 50001), options=options).passes(b"PASV\r\n")
        play.backend(b"227 (1,2,3,4,156,64)\r\n", OPEN, *answer).run()


def test_where_no_port_is_free_the_client_may_try_again() -> None:
    play = private(place=None).passes(b"EPSV\r\n")
    play.backend(b"229 ok (|||40000|)\r\n", OPEN, to_client(NO_PORT))
    told(play, (b"RETR a", b"425 Use PASV or EPSV first")).run()


def test_epsv_all_is_kept_here() -> None:
    play = told(private(options={"active": "yes"}), (b"EPSV all", b"200 EPSV ALL ok"), (b"PASV", b"522 Use EPSV"))
    told(play, (b"PORT 192,0,2,10,4,1", b"522 Use EPSV"), (b"EPRT |1|192.0.2.10|1025|", b"522 Use EPSV"))
    listens(play).run()


def test_epsv_names_the_clients_own_family() -> None:
    play = told(private(), (b"EPSV 2", b"522 Network protocol not supported, use (1)"))
    play.client(b"EPSV 1\r\n", to_backend(b"EPSV\r\n")).run()
    agreed = terms(client="2001:db8::10", policy=Policy.REQUIRED)
    play = Playbook(DIALECT, agreed).start(DIAL).dialled().returns(GREETING)
    play.client(b"AUTH TLS\r\n", tls(GO_AHEAD)).secured()
    told(play, (b"PROT P", b"200 Protection set to P"), (b"PASV", b"522 Use EPSV"))
    told(play, (b"EPSV 1", b"522 Network protocol not supported, use (2)"))
    play.client(b"EPSV 2\r\n", to_backend(b"EPSV\r\n")).run()


def test_a_second_port_closes_the_first() -> None:
    begins(listens(listens(private()), 40001, cut=True)).run()


def test_a_transfer_without_a_data_connection_is_refused() -> None:
    told(private(), *((verb + b" a", b"425 Use PASV or EPSV first") for verb in sorted(words.TRANSFERS))).run()


# --- transfers ----------------------------------------------------------------------------------------------


def test_the_name_of_a_file_is_told_if_that_is_wanted() -> None:
    begins(listens(private(options={"log_files": "yes"})), b"STOR a b", ("file", b"a b")).run()
    begins(listens(private(options={"log_files": "yes"})), b"LIST /etc").run()
    begins(listens(private()), b"APPE a").run()


def test_a_transfer_and_what_it_leaves() -> None:
    play = begins(listens(private()))
    play.returns(b"150-go\r\n150 go\r\n")
    play.returns(b"226 done\r\n").waits(Patience.COMMAND)
    # What is under way may arrive: the next port does not cut it.
    told(play, (b"RETR b", b"425 Use PASV or EPSV first"))
    begins(listens(play, 40001), b"LIST").run()


def test_226_without_150() -> None:
    begins(listens(private())).returns(b"226 done\r\n").waits(Patience.COMMAND).run()


def test_a_transfer_that_does_not_begin_closes_its_port() -> None:
    play = begins(listens(private())).returns(b"550 no such file\r\n", Cut())
    told(play, (b"RETR b", b"425 Use PASV or EPSV first")).run()


def test_a_transfer_that_fails_midway_ends_by_itself() -> None:
    play = begins(listens(private())).returns(b"150 go\r\n")
    listens(play.returns(b"426 cut\r\n"), 40001).run()


def test_other_commands_wait_for_the_end_of_a_transfer() -> None:
    play = begins(listens(private())).returns(b"150 go\r\n")
    play.client(b"PWD\r\nCWD /\r\n")
    play.returns(b"226 done\r\n", to_backend(b"PWD\r\n"))
    play.returns(b"257 /\r\n", to_backend(b"CWD /\r\n")).run()


def test_bad_lines_wait_as_well() -> None:
    for said, answer in (
        (b"NO\0OP\r\n", b"501 Invalid characters\r\n"),
        (b"x" * 5000 + b"\r\n", b"500 Line too long\r\n"),
    ):
        play = begins(listens(private())).client(said)
        play.backend(b"226 done\r\n", to_client(b"226 done\r\n" + answer)).run()


def test_abor_closes_the_data_connection_before_the_backend_hears_it() -> None:
    play = begins(listens(private())).returns(b"150 go\r\n")
    play.client(b"\xff\xf4\xff\xf2ABOR\r\n", Cut(), to_backend(b"ABOR\r\n"))
    play.returns(b"426 cut\r\n").waits(Patience.COMMAND)
    play.returns(b"226 aborted\r\n").waits(Patience.COMMAND)
    listens(play, 40001).run()


def aborted(*pipelined: bytes) -> Playbook:
    """A transfer that was aborted, and the first reply to that."""
    play = begins(listens(private())).returns(b"150 go\r\n")
    play.client(b"ABOR\r\n", Cut(), to_backend(b"ABOR\r\n"))
    return play.returns(b"426 cut\r\n")


@pytest.mark.parametrize("answers", [(b"200 ok\r\n",), (b"200-o\r\n200 k\r\n",), (b"226 aborted\r\n", b"500 what\r\n")])
def test_a_server_may_say_one_reply_to_a_transfer_and_its_abor(answers: tuple[bytes, ...]) -> None:
    """A NOOP of ours tells whether another one comes: commands are answered in turn."""
    play = aborted().client(b"PWD\r\n", to_backend(b"NOOP\r\n")).waits(TRANSFER)
    for answer in answers[:-1]:
        play.returns(answer)
    play.backend(answers[-1], to_backend(b"PWD\r\n")).returns(b"257 /\r\n")
    asked(play, b"SYST", b"215 x\r\n").run()


def test_goodbye_behind_an_abor_that_is_not_answered() -> None:
    aborted().asks(b"QUIT\r\n", b"221 bye\r\n", close("quit")).run()


def test_a_server_leaves_behind_an_abor() -> None:
    play = aborted().client(b"PWD\r\n", to_backend(b"NOOP\r\n")).returns(b"226 a\r\n")
    play.returns(b"421 bye\r\n", BYE).run()


def test_a_client_that_waits_for_another_reply_to_abor_is_idle() -> None:
    late = Expired(CLIENT, Patience.COMMAND)
    play = aborted().waits(Patience.COMMAND)
    play.expire(late, to_client(b"421 Timeout\r\n"), ABORT_BACKEND, close("client-timeout")).run()


def test_abor_closes_a_port_that_nobody_has_used() -> None:
    """The backend may give it up, and another session's data be there next."""
    play = listens(private()).client(b"ABOR\r\n", Cut(), to_backend(b"ABOR\r\n"))
    play.returns(b"225 none\r\n")
    told(play, (b"RETR a", b"425 Use PASV or EPSV first")).run()


def test_the_end_of_a_cut_transfer_in_pure_ftpd() -> None:
    play = begins(listens(private(broken=True))).returns(b"150 go\r\n")
    play.client(b"ABOR\r\n", Cut(), to_backend(b"ABOR\r\n"))
    play.backend(b"150 0.03 seconds\r\n", to_client(b"426 0.03 seconds\r\n"))
    play.returns(b"226 aborted\r\n").waits(Patience.COMMAND).run()
    play = begins(listens(private())).returns(b"125 a\r\n")
    play.returns(b"150 b\r\n").waits(TRANSFER).run()


def test_stat_noop_and_quit_go_through_during_a_transfer() -> None:
    play = begins(listens(private())).returns(b"150 go\r\n")
    play.passes(b"STAT\r\nNOOP\r\n")
    play.client(b"QUIT\r\nPWD\r\n", to_backend(b"QUIT\r\n"))
    play.returns(b"226 done\r\n")
    play.returns(b"211-a\r\n b\r\n211 c\r\n")
    play.returns(b"200 ok\r\n")
    play.returns(b"221 bye\r\n", close("quit")).run()


def test_stat_may_be_answered_before_the_end_of_a_transfer() -> None:
    play = begins(listens(private()), b"STOR a").returns(b"150 go\r\n")
    for said, answer in ((b"STAT\r\n", b"213-a\r\n b\r\n213 c\r\n"), (b"NOOP\r\n", b"200 ok\r\n")):
        play.asks(said, answer).waits(TRANSFER)
    play.ended(CLIENT, False, Cut(), ABORT_BACKEND, close("client-lost")).run()


def test_a_reply_may_repeat_the_longest_path() -> None:
    path = b"/d" * 2044
    play = begins(listens(private()), b"RETR " + path)
    go = b"150 Opening data connection for %s (12 bytes).\r\n" % path
    play.returns(go).run((WHOLE,))


def test_replies_that_are_owed_are_limited() -> None:
    play = begins(listens(private()))
    noops = (MOST_OWED - 1) * b"NOOP\r\n"
    play.client(noops + b"NOOP\r\n", to_backend(noops))
    play.returns(b"226 done\r\n", to_backend(b"NOOP\r\n")).run()


def test_pret_precedes_pasv() -> None:
    listens(asked(private(), b"PRET RETR a", b"200 ok\r\n")).run()


def test_garbage_in_place_of_a_reply_cuts_the_transfer() -> None:
    play = begins(listens(private()))
    end = (note("backend-protocol-error"), to_client(b"421 Service not available, closing control connection\r\n"))
    play.backend(b"+OK\r\n", Cut(), *end, ABORT_BACKEND, close("backend-protocol-error")).run()


def test_who_is_lost_during_a_transfer_takes_it_along() -> None:
    begins(listens(private())).ended(CLIENT, False, Cut(), ABORT_BACKEND, close("client-lost")).run()
    play = begins(listens(private()))
    play.ended(BACKEND, True, Cut(), to_client(LOST), ABORT_BACKEND, close("backend-lost")).run()
    late = Expired(BACKEND, TRANSFER)
    play = begins(listens(private()))
    play.expire(late, Cut(), *aborts("backend-timeout", LOST)).run()


def test_a_stop_waits_for_the_end_of_a_transfer() -> None:
    bye = (to_client(b"421 Service not available, closing control connection\r\n"), to_backend(b"QUIT\r\n"))
    play = begins(listens(private())).stop().returns(b"150 go\r\n")
    done = to_client(b"226 done\r\n421 Service not available, closing control connection\r\n")
    play.backend(b"226 done\r\n", done, to_backend(b"QUIT\r\n"), close("shutdown")).run()
    listens(private()).stop(*bye, close("shutdown")).run()


# --- active mode ----------------------------------------------------------------------------------------------

ACTIVE = {"active": "yes"}


def test_active_mode_is_off_unless_it_is_wanted() -> None:
    told(
        private(),
        (b"PORT 192,0,2,10,4,1", b"500 Use PASV or EPSV"),
        (b"EPRT |1|192.0.2.10|1025|", b"500 Use PASV or EPSV"),
    ).run()


@pytest.mark.parametrize("said", [b"PORT 192,0,2,10,4,1", b"EPRT |1|192.0.2.10|1025|"])
def test_the_backend_is_told_a_port_of_ours(said: bytes) -> None:
    play = private(options=ACTIVE).client(
        said + b"\r\n", Open(BACKEND, 1025, True), to_backend(b"PORT 198,51,100,1,195,81\r\n")
    )
    begins(play.returns(b"200 ok\r\n"), b"STOR a").run()
    play = private(options=ACTIVE, place=Place("2001:db8::1%eth0", 50001))
    play.client(said + b"\r\n", Open(BACKEND, 1025, True), to_backend(b"EPRT |2|2001:db8::1|50001|\r\n"))
    play.backend(b"501 no\r\n", Cut(), to_client(b"501 no\r\n")).run()
    play = private(options=ACTIVE, place=None)
    play.client(said + b"\r\n", Open(BACKEND, 1025, True), to_client(NO_PORT)).run()


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"PORT 192,0,2,11,4,1", b"500 Illegal PORT command"),
        (b"PORT 127,0,0,1,4,1", b"500 Illegal PORT command"),
        (b"PORT 192,0,2,10,0,25", b"500 Illegal PORT command"),
        (b"EPRT |1|192.0.2.11|1025|", b"500 Illegal PORT command"),
        (b"EPRT |1|192.0.2.10|25|", b"500 Illegal PORT command"),
        (b"EPRT |2|2001:db8::1|1025|", b"500 Illegal PORT command"),
        (b"PORT", b"501 Syntax error in parameters"),
        (b"PORT 192,0,2,10,4", b"501 Syntax error in parameters"),
        (b"PORT 192,0,2,256,4,1", b"501 Syntax error in parameters"),
        (b"EPRT |1|192.0.2.10|70000|", b"501 Syntax error in parameters"),
        (b"EPRT |2|192.0.2.10|1025|", b"501 Syntax error in parameters"),
        (b"EPRT |1|192.0.2.|1025|", b"501 Syntax error in parameters"),
        (b"EPRT |3|x|1025|", b"501 Syntax error in parameters"),
    ],
)
def test_nobody_but_the_client_is_connected_to(said: bytes, answer: bytes) -> None:
    told(private(options=ACTIVE), (said, answer)).run()


# --- TLS with the backend ----------------------------------------------------------------------------------------


def test_data_connections_with_a_backend_that_has_tls_have_it_too() -> None:
    play = opened(backend_tls=BackendTLS.STARTTLS).start(DIAL).dialled().backend(GREETING, to_backend(b"AUTH TLS\r\n"))
    play.backend(b"234 go\r\n", SWITCH).secured(to_client(GREETING))
    play.client(b"AUTH TLS\r\n", tls(GO_AHEAD)).secured()
    told(play, (b"PROT P", b"200 Protection set to P"))
    play.client(b"EPSV\r\n", to_backend(b"PBSZ 0\r\n")).backend(b"200 ok\r\n", to_backend(b"PROT P\r\n"))
    play.backend(b"200 ok\r\n", to_backend(b"EPSV\r\n"))
    play.backend(b"229 ok (|||40000|)\r\n", OPEN, to_client(EXTENDED))
    listens(play, 40001, cut=True).run()


def test_a_backend_that_does_not_protect_data_is_not_used_for_it() -> None:
    play = opened(backend_tls=BackendTLS.IMPLICIT).start(DIAL).dialled(SWITCH).secured()
    play.returns(GREETING).client(b"AUTH TLS\r\n", tls(GO_AHEAD)).secured()
    told(play, (b"PROT P", b"200 Protection set to P"))
    play.client(b"EPSV\r\n", to_backend(b"PBSZ 0\r\n"))
    end = (to_client(b"421 Service not available, closing control connection\r\n"), ABORT_BACKEND)
    play.backend(b"502 no\r\n", note("backend-tls-failed"), *end, close("backend-tls-failed")).run()


def test_a_backend_may_turn_away_instead_of_tls() -> None:
    play = opened(backend_tls=BackendTLS.STARTTLS).start(DIAL).dialled().backend(GREETING, to_backend(b"AUTH TLS\r\n"))
    play.returns(b"421 full\r\n", close("backend-refused")).run()


# --- octets come as the network cuts them ---------------------------------------------------------------------------


def test_every_cut_of_the_segments_gives_the_same() -> None:
    play = begins(listens(private()))
    play.returns(b"150-go\r\n ahead\r\n150 go\r\n")
    play.client(b"\xff\xf4\xff\xf2ABOR\r\nPASV\r\n", Cut(), to_backend(b"ABOR\r\n"))
    play.returns(b"426 cut\r\n", to_backend(b"NOOP\r\n"))
    play.returns(b"226 aborted\r\n").backend(b"200 ok\r\n", to_backend(b"PASV\r\n"))
    play.backend(b"227 (1,2,3,4,156,65)\r\n", Open(CLIENT, 40001, True), to_client(PASSIVE))
    play.run((WHOLE, *range(SINGLE, 24)))


# --- pure functions ---------------------------------------------------------------------------------------------------


@given(st.binary(max_size=60))
def test_any_reply_has_a_good_port_or_none(reply: bytes) -> None:
    for code in (b"", b"227 ", b"229 "):
        port = words.passive_port(code + reply)
        assert port is None or 1024 <= port <= 65535


@given(st.integers(0, 65535), st.ip_addresses(v=4).map(str))
def test_what_is_said_of_a_port_is_read_so(port: int, host: str) -> None:
    said = words.port_command(Place(host, port))
    assert words.active_place(b"PORT", said.removeprefix(b"PORT ")) == Place(host, port)
    assert words.passive_port(b"227 (%s)" % words.six_numbers(host, port)) == (port if port >= 1024 else None)
    assert words.passive_port(b"229 (!!!%d!)" % port) == (port if port >= 1024 else None)


@given(st.integers(0, 65535), st.ip_addresses(v=6).map(str))
def test_the_same_for_ipv6(port: int, host: str) -> None:
    said = words.port_command(Place(host, port)).removeprefix(b"EPRT ")
    assert words.active_place(b"EPRT", said) == Place(host, port)


@given(
    st.lists(st.sampled_from([b" AUTH TLS", b" PBSZ", b" EPRT", b" SIZE", b"", b" CCC", b" AUTH SSL;TLS", b";x"])),
    st.booleans(),
)
def test_edited_features_stay_as_they_are(lines: list[bytes], secured: bool) -> None:
    once = words.edit_features(lines, secured=secured, active=False)
    assert words.edit_features(once, secured=secured, active=False) == once
    assert (b" AUTH TLS" in once) is not secured


@given(st.binary(max_size=40))
def test_a_line_without_telnet_begins_with_none(line: bytes) -> None:
    left = words.without_telnet(line)
    assert line.endswith(left)
    assert words.without_telnet(left) == left


def test_a_list_of_features_is_read() -> None:
    assert words.listed(b"211-x\r\n AUTH TLS\r\n SIZE\r\n211 End\r\n") == [b"AUTH TLS", b"SIZE"]
    assert words.listed(b"211 none\r\n") == []
    assert words.listed(b"500 what\r\n") is None


def test_what_a_look_says_of_logins() -> None:
    def access(answer: bytes, offered: list[bytes] | None = None) -> Access:
        return words.of_ftp(Seen(GREETING, offered, offered, [answer] if answer else []))

    assert access(b"331 password\r\n", [b"AUTH TLS"]) == Access(("USER",), starttls=True)
    assert access(b"230 in\r\n", [b"SIZE"]) == Access(("USER",), starttls=False)
    refusal = b"530 Non-anonymous sessions must use encryption.\r\n"
    assert access(refusal) == Access((), refusal)
    assert access(b"530 no\r\n") == access(b"") == Access()


def test_ranges_of_ports() -> None:
    assert port_range("50000-50999") == range(50000, 51000)
    assert port_range("1024-1024") == range(1024, 1025)


def test_probing_knows_whole_replies() -> None:
    assert DIALECT.probing is not None
    complete = DIALECT.probing.complete
    assert complete(b"", b"220 hi\r\n")
    assert not complete(b"", b"")
    assert not complete(b"", b"220-hi\r\n")
    assert complete(b"", b"220-hi\r\n x\r\n220 ready\r\n")
    assert DIALECT.probing.agrees(b"234 go\r\n")
    assert DIALECT.probing.attempts[0].taken(b"331 go\r\n")


def test_the_place_of_these_tests_is_that_of_all() -> None:
    assert words.six_numbers(LISTENING.host, LISTENING.port) in PASSIVE


def test_what_holds_for_all_channels_of_a_service() -> None:
    text = (
        "[gateway]\nhostname = gw.example.org\n[tls]\ncertificate = a.pem\n[timeouts]\ndata_stall = 9 s\n"
        "[service:ftp]\nstarttls = 21\nbackend = 10.0.0.8:21\npassive_ports = 2000-2009\n"
        "data_session_reuse = required\naccept_proxy = 10.0.0.1 2001:db8::/64\n"
        "[service:imap]\nstarttls = 143\nbackend = 10.0.0.8:143\n"
    )
    configuration = parse(text, "gw.ini", DIALECTS)
    ftp, imap = configuration.services
    assert channel_terms(configuration, imap) is None
    assert channels_each(configuration) == 2
    assert channels_each(replace(configuration, services=(imap,))) == 0
    agreed = channel_terms(configuration, ftp)
    assert agreed is not None
    assert replace(agreed, balancers=()) == ChannelTerms(
        range(2000, 2010), connect=60.0, stall=9.0, most=2, strict=True, resumed=True
    )
    assert agreed.introduces("10.0.0.1")
    assert agreed.introduces("2001:db8::7")
    assert not agreed.introduces("10.0.0.2")
