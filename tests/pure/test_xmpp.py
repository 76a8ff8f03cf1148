"""XMPP: what is said before TLS, features, logins, dialback; each octet case cut at every position."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import ConfigurationError, Machine, parse
from gateway.dialects import DIALECTS
from gateway.dialects.base import BackendTLS, Dialect
from gateway.dialects.chat.xmpp import DIALECT, SERVERS, words
from gateway.dialects.chat.xmpp.exchange import LOGIN
from gateway.dialects.chat.xmpp.xml import Stanza, Stream
from gateway.dialects.survey import Survey
from gateway.protocol.inbox import Inbox
from gateway.protocol.vocabulary import Dial, Expired, Patience, Side, StartTLS
from tests.pure.contract.answers import xmpp, xmpp_server
from tests.pure.contract.answers.xmpp import (
    AUTH,
    CLOSE,
    DENIED,
    FAILURE,
    FIRST,
    GREETING,
    HEADER,
    OFFER,
    PROCEED,
    REGISTER,
    SASL,
    STARTTLS,
    STREAMS,
    SUCCESS,
    answer,
    ended,
    error,
    features,
    header,
)
from tests.pure.contract.answers.xmpp_server import INVALID, KEY, VALID, servers
from tests.pure.contract.party import CALLERS, Caller
from tests.pure.looking import Looking
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    PROVEN,
    REJECTED,
    SPLICE,
    TLS13,
    WHOLE,
    Expected,
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

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND
CLIENTS, PEERS = (next(party for party in CALLERS if party.dialect is dialect) for dialect in (DIALECT, SERVERS))
SASL2 = b" xmlns='urn:xmpp:sasl:2'"
REFUSED = b"<failure%s><encryption-required/></failure>"
LOCKED = note("backend-refuses-plaintext-auth")


def fresh(dialect: Dialect = DIALECT, **changes: object) -> Playbook:
    return Playbook(dialect, terms(**changes)).start()


def welcomed(told: bytes = GREETING, *then: Expected, party: Caller = CLIENTS, **changes: object) -> Playbook:
    """Inside TLS, and the backend has greeted with this."""
    play = party.inside(**changes).dials(party.answers.login)
    return play.returns(told, *then)


def malformed(*told: Expected, key: str = "client-protocol-error") -> tuple[Expected, ...]:
    return note(key), *told, ABORT_BACKEND, close(key)


# --- before TLS --------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", [b"\n", b" \r\n\t", b"\n\x16\3\1", b"\n<", b"\0", b"\x0b"])
def test_nothing_but_blanks_may_come_behind_starttls(behind: bytes) -> None:
    rest = behind.lstrip(b" \t\r\n")
    if rest in (b"", b"\x16\3\1"):
        fresh().client(HEADER + STARTTLS + behind, tls(FIRST + PROCEED, early=rest)).run((WHOLE,))
    else:
        key = "starttls-injection"
        ending = aborts(key)
        fresh().client(HEADER + STARTTLS + behind, to_client(FIRST + PROCEED), *ending).run((WHOLE,))


@pytest.mark.parametrize("said", [
    HEADER + STARTTLS,
    b"<?xml version='1.0'?>" + HEADER + b"\n" + STARTTLS + b"\r\n",
    b'<stream:stream version="1.0" xmlns="jabber:client" xmlns:stream="%s" to="gw.example.org">' % STREAMS
    + b'<starttls xmlns="urn:ietf:params:xml:ns:xmpp-tls"></starttls>',
    b"<s:stream xmlns:s='%s' xmlns='jabber:client' to='gw.example.org' version='1.1'>" % STREAMS
    + b"<t:starttls xmlns:t='urn:ietf:params:xml:ns:xmpp-tls'/>",
])  # fmt: skip
def test_a_header_may_be_written_in_many_ways(said: bytes) -> None:
    """What comes behind the go-ahead is the leg's, which drops blanks there."""
    fresh().client(said, tls(FIRST + PROCEED)).secured().client(HEADER, DIAL).run((WHOLE,))
    fresh().client(said.rstrip(), tls(FIRST + PROCEED)).secured().client(HEADER, DIAL).run()


@pytest.mark.parametrize(("name", "found"), [
    ("one.example.org", b"one.example.org"),
    ("B\u00fccher.example.org", b"xn--bcher-kva.example.org"),
    ("\u00fc" * 70, ("\u00fc" * 70).encode()),
])  # fmt: skip
def test_the_name_that_was_asked_for_goes_with_the_handshake(name: str, found: bytes) -> None:
    """As certificates have it."""
    stage = Stage(DIALECT, terms())
    stage.take(stage.negotiation.start())
    (*_, switch) = stage.negotiation.receive(CLIENT, header(name.encode()) + STARTTLS)
    assert isinstance(switch, StartTLS)
    assert (switch.name, switch.blanks) == (found, b" \t\r\n")


@pytest.mark.parametrize(("said", "condition", "domain"), [
    (HEADER.replace(b" version='1.0'", b""), b"unsupported-version", b"gw.example.org"),
    (HEADER.replace(b"version='1.0'", b"version='0.9'"), b"unsupported-version", b"gw.example.org"),
    (HEADER.replace(b" to='gw.example.org'", b""), b"improper-addressing", b"gw.example.org"),
    (header(b""), b"host-unknown", b"gw.example.org"),
    (header(b"a b"), b"host-unknown", b"gw.example.org"),
    (header(b"a&apos;b"), b"host-unknown", b"gw.example.org"),
    (header(b"joe@example.org"), b"host-unknown", b"gw.example.org"),
    (header(b"x" * 256), b"host-unknown", b"gw.example.org"),
    (HEADER.replace(b"jabber:client", b"jabber:server"), b"invalid-namespace", b"gw.example.org"),
    (HEADER.replace(STREAMS, b"urn:x"), b"invalid-namespace", b"gw.example.org"),
    (b"<html>", b"invalid-namespace", b"gw.example.org"),
    (b"<!DOCTYPE html>", b"restricted-xml", b"gw.example.org"),
    (b"SSH-2.0-x\r\n", b"not-well-formed", b"gw.example.org"),
    (header(b"x.example").replace(b"='1.0'", b"='2.0'"), b"unsupported-version", b"x.example"),
    (header(b"m\xc3\xbc.example").replace(b"='1.0'", b"='2.0'"), b"unsupported-version", b"m\xc3\xbc.example"),
])  # fmt: skip
def test_a_header_that_is_none_is_answered_by_an_error(said: bytes, condition: bytes, domain: bytes) -> None:
    words = ended(condition).replace(b"gw.example.org", domain)
    for implicit in (False, True):
        CLIENTS.opened(implicit=implicit).client(said, *malformed(to_client(words))).run()


def test_logins_before_tls_are_refused_and_the_third_is_the_last() -> None:
    two = b"<authenticate%s mechanism='PLAIN'><initial-response>AGpvZQBz</initial-response></authenticate>" % SASL2
    refused = REFUSED % SASL
    refused2 = b"<failure%s><encryption-required%s/></failure>" % (SASL2, SASL)
    play = fresh().client(HEADER, to_client(FIRST)).client(AUTH, to_client(refused)).client(two, to_client(refused2))
    ending = malformed(to_client(refused + error(b"policy-violation")), key="too-many-bad-commands")
    play.client(AUTH, *ending).run()
    assert [told.event for told in play.notes].count("tls-required") == 1
    assert [told.event for told in play.notes].count("password-in-clear") == 3
    play = fresh().client(HEADER + AUTH * 2, to_client(FIRST + refused * 2))
    play.client(STARTTLS, tls(PROCEED)).secured().client(HEADER, DIAL).run()


@pytest.mark.parametrize("said", [REGISTER, b"<message><body>x</body></message>", b"<presence/>"])
def test_stanzas_before_tls_end_the_session(said: bytes) -> None:
    play = fresh().client(HEADER, to_client(FIRST))
    play.client(said, note("tls-required"), to_client(error(b"policy-violation")), close("tls-required")).run()
    assert [told.event for told in play.notes].count("password-in-clear") == (said == REGISTER)


@pytest.mark.parametrize("said", [b"<auth%s mechanism='PLAIN'/>", b"<auth%s mechanism='SCRAM-SHA-1'>biws</auth>"])
def test_a_login_that_shows_nothing_is_not_told_as_a_password(said: bytes) -> None:
    play = fresh().client(HEADER + said % SASL, to_client(FIRST + REFUSED % SASL)).run()
    assert [told.event for told in play.notes] == ["tls-required"]


def test_a_key_before_tls_ends_the_session() -> None:
    said = b"<db:verify from='peer.example' to='gw.example.org' id='x'>k</db:verify>"
    for each in (KEY, said):
        play = fresh(SERVERS).client(xmpp_server.HEADER, to_client(xmpp_server.FIRST))
        play.client(each, to_client(error(b"policy-violation")), close("tls-required")).run()


@pytest.mark.parametrize("said", [b"<foo xmlns='urn:x'/>", b"<starttls xmlns='urn:x'/>", HEADER + CLOSE])
def test_anything_else_before_tls_is_unsupported(said: bytes) -> None:
    play = fresh().client(HEADER, to_client(FIRST))
    play.client(said, *malformed(to_client(error(b"unsupported-stanza-type")))).run()


def test_a_client_may_leave_before_tls() -> None:
    fresh().client(HEADER + CLOSE, to_client(FIRST + CLOSE), close("quit")).run()


def test_all_that_comes_before_tls_has_4096_octets() -> None:
    filling = b" " * (4096 - len(HEADER + STARTTLS))
    fresh().client(HEADER + filling + STARTTLS, tls(FIRST + PROCEED)).run()
    ending = malformed(to_client(FIRST + error(b"policy-violation")))
    fresh().client(HEADER + filling + b" " + STARTTLS, *ending).run((WHOLE,))


@pytest.mark.parametrize(("said", "key"), [
    (b"GET / HTTP/1.1\r\n", "http-client"), (b"\x16\x03\x01", "tls-on-plaintext-port"),
    (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", "unexpected-proxy-header"),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", "unexpected-proxy-header"),
])  # fmt: skip
def test_strangers_hear_nothing(said: bytes, key: str) -> None:
    fresh().client(said, *malformed(key=key)).run()


# --- features ----------------------------------------------------------------------------------------


def shown(octets: bytes) -> bytes:
    inbox, stream = Inbox(BACKEND), Stream(65536)
    inbox.feed(answer(b"") + octets)
    stream.unit(inbox)
    unit = stream.unit(inbox)
    assert isinstance(unit, Stanza)
    return words.shown(unit)


@pytest.mark.parametrize(("offered", "left"), [
    (features(b"PLAIN", b"SCRAM-SHA-1"), features(b"PLAIN", b"SCRAM-SHA-1")),
    (features(b"PLAIN", b"EXTERNAL", more=STARTTLS), features(b"PLAIN")),
    (features(b"PLAIN", b"SCRAM-SHA-1", b"SCRAM-SHA-1-PLUS"), features(b"PLAIN")),
    (features(b"SCRAM-SHA-1", b"SCRAM-SHA-1-PLUS"), features(b"SCRAM-SHA-1")),
    (OFFER, b"<stream:features></stream:features>"),
    (features(b"EXTERNAL"), b"<stream:features></stream:features>"),
    (b" <stream:features  a='>'>\n<x/> " + STARTTLS + b"\t<y></y></stream:features>",
     b" <stream:features  a='>'>\n<x/> \t<y></y></stream:features>"),
    # Prefixes, CDATA, character references, blanks.
    (b"<stream:features><s:mechanisms xmlns:s='urn:ietf:params:xml:ns:xmpp-sasl'><s:mechanism> EXTERNAL\n</s:mechanism>"
     b"<s:mechanism><![CDATA[EXTERNAL]]></s:mechanism><s:mechanism>EX&#84;ERNAL</s:mechanism>"
     b"<s:mechanism>PLAIN</s:mechanism></s:mechanisms></stream:features>",
     b"<stream:features><s:mechanisms xmlns:s='urn:ietf:params:xml:ns:xmpp-sasl'>"
     b"<s:mechanism>PLAIN</s:mechanism></s:mechanisms></stream:features>"),
    # Others' elements of the same name are no mechanisms.
    (b"<stream:features><mechanisms xmlns='urn:x'><mechanism>EXTERNAL</mechanism></mechanisms></stream:features>",
     b"<stream:features><mechanisms xmlns='urn:x'><mechanism>EXTERNAL</mechanism></mechanisms></stream:features>"),
    (b"<stream:features><authentication%s><mechanism>PLAIN</mechanism><mechanism>EXTERNAL</mechanism><inline>"
     b"<fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-EXPR</mechanism><mechanism>HT-SHA-256-NONE</mechanism>"
     b"</fast></inline></authentication><sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'/></stream:features>" % SASL2,
     b"<stream:features><authentication%s><mechanism>PLAIN</mechanism><inline><fast xmlns='urn:xmpp:fast:0'>"
     b"<mechanism>HT-SHA-256-NONE</mechanism></fast></inline></authentication></stream:features>" % SASL2),
    (b"<stream:features><authentication%s><mechanism>EXTERNAL</mechanism><inline><fast xmlns='urn:xmpp:fast:0'>"
     b"<mechanism>HT-SHA-256-EXPR</mechanism></fast></inline></authentication><a/></stream:features>" % SASL2,
     b"<stream:features><a/></stream:features>"),
    (features(b"PLAIN", more=b"<compression xmlns='http://jabber.org/features/compress'><method>zlib</method>"
              b"</compression>"), features(b"PLAIN")),
])  # fmt: skip
def test_what_cannot_work_is_left_out_and_all_else_is_as_it_was(offered: bytes, left: bytes) -> None:
    assert shown(offered) == left
    assert shown(left) == left


NAMES = st.sampled_from([b"PLAIN", b"EXTERNAL", b"SCRAM-SHA-1", b"SCRAM-SHA-1-PLUS", b"external", b"X"])
BETWEEN = st.sampled_from([b"", b" ", STARTTLS, b"<c xmlns='urn:c' v='&lt;>'/>", b"<sub>t&amp;</sub>"])


@given(st.lists(NAMES, max_size=5), st.lists(BETWEEN, max_size=3))
def test_an_edited_list_stays_as_it_is(names: list[bytes], more: list[bytes]) -> None:
    left = shown(features(*names, more=b"".join(more)))
    assert shown(left) == left
    assert b"EXTERNAL" not in left.upper()
    assert b"starttls" not in left
    for each in more:
        assert each == STARTTLS or each in left


def test_a_backend_without_a_login_is_told_of_once() -> None:
    for offered, cure in ((OFFER, "tls = starttls"), (b"<stream:features/>", "tls = starttls or implicit")):
        told = answer(offered)
        left = answer(b"<stream:features></stream:features>" if offered == OFFER else offered)
        play = CLIENTS.inside().dials(HEADER).backend(told, to_client(left), LOCKED)
        play.run()
        (locked,) = play.notes
        assert locked.once
        assert cure in str(dict(locked.fields)["cure"])
        assert "c2s_require_encryption = false" in str(dict(locked.fields)["cure"])


def test_a_login_by_a_query_is_one() -> None:
    told = answer(b"<stream:features><auth xmlns='http://jabber.org/features/iq-auth'/></stream:features>")
    assert welcomed(told).run().notes == []


def test_channel_binding_is_told_of_once() -> None:
    told = answer(features(b"PLAIN", b"SCRAM-SHA-1", b"SCRAM-SHA-1-PLUS"))
    play = CLIENTS.inside().dials(HEADER)
    play.backend(told, to_client(answer(features(b"PLAIN"))), note("backend-channel-binding")).run()
    assert [each.once for each in play.notes] == [True]


def test_features_that_come_again_are_edited_too() -> None:
    again = features(b"PLAIN", b"EXTERNAL", more=STARTTLS)
    welcomed().backend(again, to_client(features(b"PLAIN"))).run()


# --- the backend's header ----------------------------------------------------------------------------


QUERY = (
    b"<iq type='set' id='a'><query xmlns='jabber:iq:auth'><username>joe</username><password>x</password></query></iq>"
)


@pytest.mark.parametrize(
    ("said", "done"),
    [
        (b"<auth%s mechanism='PLAIN'/>" % SASL, SUCCESS),
        (b"<auth%s mechanism='PLAIN'>=</auth>" % SASL, SUCCESS),
        (b"<auth%s mechanism='PLAIN'>\n </auth>" % SASL, SUCCESS),
        (QUERY.replace(b"<password>x</password>", b""), b"<iq type='result' id='a'/>"),
    ],
)
def test_T11_a_success_without_credentials_is_none(said: bytes, done: bytes) -> None:
    play = welcomed().passes(said)
    play.backend(done, *malformed(to_client(error(b"internal-server-error")), key="backend-protocol-error")).run()


@pytest.mark.parametrize("end", [b"<response%s>AGpvZQBz</response>", b"<abort%s/>"])
def test_a_login_that_was_taken_back_succeeds_no_more(end: bytes) -> None:
    said, end = b"<auth%s mechanism='PLAIN'>AGpvZQBz</auth>" % SASL, end % SASL
    play = welcomed().asks(said, CHALLENGE)
    play.passes(end)
    if b"abort" in end:
        play.backend(
            SUCCESS, *malformed(to_client(error(b"internal-server-error")), key="backend-protocol-error")
        ).run()
    else:
        play.returns(SUCCESS, PROVEN, SPLICE).run()


def test_an_anonymous_login_needs_no_credentials() -> None:
    said = b"<auth%s mechanism='ANONYMOUS'/>" % SASL
    welcomed().asks(said, SUCCESS, PROVEN, SPLICE).run()


def test_a_server_without_a_version_has_no_features() -> None:
    told = answer(b"").replace(b" version='1.0'", b"", 2).replace(b"<?xml?>", b"<?xml version='1.0'?>")
    done = b"<iq type='result' id='a'/>"
    welcomed(told).asks(QUERY, done, note("auth", mechanism="IQ-AUTH", user=b"joe"), PROVEN, SPLICE).run()


def test_a_refusal_is_told_in_the_servers_words() -> None:
    text = b"<text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>This server does not serve x</text></stream:error>"
    refusal = answer(error(b"host-unknown").replace(b"</stream:error>", text))
    told = note("backend-refused", text=b"host-unknown: This server does not serve x")
    play = CLIENTS.inside().dials(HEADER)
    play.backend(refusal, told, to_client(refusal), close("backend-refused")).run((WHOLE,))
    refusal = answer(b"<stream:error/>")
    play = CLIENTS.dialled(backend_tls=BackendTLS.STARTTLS, others=True)
    told = note("backend-refused", text=b"undefined-condition")
    play.backend(refusal + CLOSE, told, to_client(refusal + CLOSE), close("backend-refused")).run()


@pytest.mark.parametrize("offer", [features(b"PLAIN"), b"<stream:features/>"])
def test_a_backend_that_offers_no_tls_is_not_used(offer: bytes) -> None:
    play = CLIENTS.dialled(backend_tls=BackendTLS.STARTTLS, others=True)
    play.backend(answer(offer), Dial("backend-tls-failed")).run()
    old = answer(b"").replace(b" version='1.0' id", b" id")
    CLIENTS.dialled(backend_tls=BackendTLS.STARTTLS, others=True).backend(old, Dial("backend-tls-failed")).run()


def test_our_words_fit_the_backends_header() -> None:
    """An error must be in the namespace of streams, whatever its prefix there."""
    told = b"<s:stream xmlns:s='%s' xmlns='jabber:client' version='1.0'><s:features/>" % STREAMS
    words = b"<s:error><not-well-formed xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></s:error></s:stream>"
    said = (to_client(words), to_backend(CLOSE), close("client-protocol-error"))
    welcomed(told).client(b"</stream>", note("client-protocol-error"), *said).run()
    told = b"<stream xmlns='%s' version='1.0'><features/>" % STREAMS
    words = b"<error><connection-timeout xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></error></stream>"
    play = welcomed(told).waits(LOGIN)
    ending = (to_client(words), to_backend(CLOSE), close("client-timeout"))
    play.expire(Expired(CLIENT, LOGIN), note("client-timeout"), *ending).run()


# --- logins ------------------------------------------------------------------------------------------

CHALLENGE = b"<challenge%s>cj1y</challenge>" % SASL
RESPONSE = b"<response%s>Yz1i</response>" % SASL


def auth(mechanism: bytes) -> bytes:
    return b"<auth%s mechanism='%s'>biws</auth>" % (SASL, mechanism)


def test_scram_passes_and_then_the_session_is_spliced() -> None:
    said, more = auth(b"SCRAM-SHA-1"), HEADER + b"\0anything"
    play = welcomed().asks(said, CHALLENGE)
    play.asks(RESPONSE, SUCCESS, note("auth", result="ok", mechanism="SCRAM-SHA-1"), PROVEN, SPLICE)
    play.asks(more, b"<!-- x -->").run()
    assert play.proven == 1


def test_sasl2_passes_with_its_tasks() -> None:
    said = b"<authenticate%s mechanism='PLAIN'><initial-response>AGpvZQBz</initial-response><a/></authenticate>" % SASL2
    task, following = b"<continue%s><tasks><task>T</task></tasks></continue>" % SASL2, b"<next%s task='T'/>" % SASL2
    done = b"<success%s><authorization-identifier>joe@gw.example.org</authorization-identifier></success>" % SASL2
    play = welcomed().asks(said, task)
    play.asks(following, done, note("auth", mechanism="PLAIN", user=b"joe"), PROVEN, SPLICE).run()


def test_a_name_that_comes_after_a_challenge_is_told() -> None:
    said, first = b"<auth%s mechanism='SCRAM-SHA-1'/>" % SASL, RESPONSE.replace(b"Yz1i", b"biwsbj1qb2Uscj14")
    play = welcomed().asks(said, CHALLENGE)
    play.asks(first, CHALLENGE)
    play.asks(RESPONSE, SUCCESS, note("auth", result="ok", user=b"joe"), PROVEN, SPLICE).run()


@pytest.mark.parametrize(
    "mechanism", [b"EXTERNAL", b"external", b"SCRAM-SHA-1-PLUS", b"HT-SHA-256-UNIQ", b" EXTERNAL", b""]
)
@pytest.mark.parametrize(("name", "namespace", "own"), [(b"auth", SASL, b""), (b"authenticate", SASL2, SASL)])
def test_mechanisms_that_cannot_work_are_refused_and_counted(
    mechanism: bytes, name: bytes, namespace: bytes, own: bytes
) -> None:
    said = b"<%s%s mechanism='%s'>=</%s>" % (name, namespace, mechanism, name)
    refused = b"<failure%s><invalid-mechanism%s/></failure>" % (namespace, own)
    play = welcomed(bad_commands=2).client(said, to_client(refused))
    ending = (to_backend(CLOSE), close("too-many-bad-commands"))
    play.client(said, to_client(refused + error(b"policy-violation")), *ending).run()


@pytest.mark.parametrize(("condition", "counted"), [
    (b"not-authorized", True), (b"account-disabled", True), (b"temporary-auth-failure", False), (b"aborted", False),
])  # fmt: skip
def test_a_failed_login_is_told_and_counted_if_it_was_a_guess(condition: bytes, counted: bool) -> None:
    failed = DENIED.replace(b"not-authorized", condition)
    play = welcomed().asks(AUTH, failed, note("auth", result="failed", mechanism="PLAIN"))
    play.asks(AUTH, SUCCESS, PROVEN, SPLICE).run()
    assert play.rejected == counted


def test_the_last_failed_login_ends_the_session() -> None:
    play = welcomed(failed_logins=2).asks(AUTH, DENIED, REJECTED)
    ending = (to_client(DENIED + error(b"policy-violation")), to_backend(CLOSE), close("too-many-failed-logins"))
    play.passes(AUTH).backend(DENIED, REJECTED, *ending).run()


def test_a_login_that_is_refused_for_want_of_tls_is_told_of() -> None:
    refused = REFUSED % SASL
    play = welcomed().passes(AUTH).backend(refused, LOCKED, to_client(refused)).run()
    assert play.rejected == 0


def test_a_login_by_a_query_that_only_asks_is_one() -> None:
    """Prosody does not look at the type."""
    guess = QUERY.replace(b"type='set'", b"type='get'")
    assert guess != QUERY
    no = b"<iq type='error' id='a'><error type='auth'><not-authorized xmlns='urn:x'/></error></iq>"
    welcomed().asks(guess, no, note("auth", result="failed", mechanism="IQ-AUTH"), REJECTED).run()


def test_above_the_limit_the_backend_is_not_asked() -> None:
    later = b"<failure%s><temporary-auth-failure/></failure>" % SASL
    limit = note("refused", limit="auth-failures-per-minute")
    play = welcomed(may_log_in=lambda: False).client(AUTH, limit, to_client(later))
    query = b"<iq type='set' id='a'><query xmlns='jabber:iq:auth'/></iq>"
    ending = (to_client(error(b"policy-violation")), to_backend(CLOSE), close("refused"))
    play.client(query, limit, *ending).run()
    play = welcomed(xmpp_server.GREETING, party=PEERS, may_log_in=lambda: False)
    play.client(KEY, limit, *ending).run()


@pytest.mark.parametrize("said", [AUTH, auth(b"EXTERNAL"), STARTTLS, b"<iq type='get' id='1'/>"])
def test_only_an_answer_may_follow_a_challenge(said: bytes) -> None:
    play = welcomed().asks(auth(b"X"), CHALLENGE)
    play.client(said, *malformed(to_client(error(b"policy-violation")))).run()


def test_a_client_may_leave_after_a_challenge() -> None:
    play = welcomed().asks(auth(b"X"), CHALLENGE)
    play.asks(CLOSE, CLOSE, close("quit")).run()


def test_what_else_comes_during_a_login_passes() -> None:
    other, unknown = b"<iq type='get' id='9'/>", b"<other%s/>" % SASL
    play = welcomed().asks(AUTH, other + unknown)
    play.returns(SUCCESS, PROVEN, SPLICE).run()


def test_a_success_that_nobody_asked_for_opens_nothing() -> None:
    done = b"<iq type='result' id='a'/>"
    play = welcomed().returns(SUCCESS + done)
    play.client(auth(b"EXTERNAL"), to_client(b"<failure%s><invalid-mechanism/></failure>" % SASL)).run()
    assert play.proven == 0
    play = welcomed(xmpp_server.GREETING, party=PEERS).returns(VALID).run()
    assert play.proven == 0


def test_a_login_by_a_query_fails_as_others_do() -> None:
    query = b"<iq type='set' id='a'><query xmlns='jabber:iq:auth'><username>joe</username></query></iq>"
    failed = b"<iq type='error' id='a'><error type='auth'%s><not-%s xmlns='urn:x'/></error></iq>"
    other = b"<iq type='result' id='b'/>"
    for code, name, counted in ((b"", b"authorized", 1), (b" code='401'", b"x", 1), (b" code='405'", b"allowed", 0)):
        told = failed % (code, name)
        play = welcomed().asks(query, other)
        play.returns(told, note("auth", result="failed", mechanism="IQ-AUTH")).run()
        assert play.rejected == counted
    get = query.replace(b"set", b"get")
    welcomed().passes(get).passes(REGISTER).run()


# --- servers -----------------------------------------------------------------------------------------


def met(**changes: object) -> Playbook:
    return welcomed(xmpp_server.GREETING, party=PEERS, **changes)


@pytest.mark.parametrize("key", [KEY, KEY.replace(b"<db:result", b"<db:result type='x'")])
def test_dialback_proves_a_server_and_then_the_session_is_spliced(key: bytes) -> None:
    """Prosody does not look at the type of a key."""
    play = met().waits(LOGIN).passes(key).waits(Patience.REPLY)
    told = note("auth", result="ok", mechanism="DIALBACK", user=b"peer.example")
    play.backend(VALID, told, PROVEN, to_client(VALID), SPLICE).run()
    limited = (note("refused"), to_client(error(b"policy-violation")), to_backend(CLOSE), close("refused"))
    met(may_log_in=lambda: False).client(key, *limited).run()


def test_a_key_does_not_make_the_other_keys_wait() -> None:
    """To answer it, the backend may first ask about one of its own on the same stream."""
    verify = b"<db:verify from='peer.example' to='gw.example.org' id='1'>k</db:verify>"
    verified = b"<db:verify from='gw.example.org' to='peer.example' id='1' type='valid'/>"
    wrong = verified.replace(b"valid", b"invalid")
    play = met().asks(KEY + verify, wrong)
    play.returns(verified, PROVEN)
    play.returns(VALID, PROVEN, SPLICE).run()
    assert play.proven == 2


def test_a_key_that_is_wrong_is_counted() -> None:
    failed = INVALID.replace(b"invalid", b"error")
    play = met(failed_logins=2).asks(KEY * 3, INVALID, note("auth", result="failed"), REJECTED)
    play.returns(failed, note("auth", result="failed"))
    ending = (to_client(INVALID + error(b"policy-violation")), to_backend(CLOSE), close("too-many-failed-logins"))
    play.backend(INVALID, REJECTED, *ending).run()


def test_a_server_that_ends_its_stream() -> None:
    ending = (to_client(CLOSE), close("backend-closed"))
    met().backend(CLOSE, *ending).run()
    met().passes(KEY).backend(CLOSE, *ending).run()
    told = error(b"conflict").removesuffix(CLOSE)
    refused = note("backend-refused", text=b"conflict")
    met().backend(told, refused, to_client(told + CLOSE), close("backend-closed")).run()


def test_certificates_of_servers_prove_nothing() -> None:
    said = b"<auth%s mechanism='EXTERNAL'>=</auth>" % SASL
    met().client(said, to_client(b"<failure%s><invalid-mechanism/></failure>" % SASL)).run()


# --- inside TLS, and the end -------------------------------------------------------------------------


def test_starttls_inside_tls_ends_the_session_as_prosody_does() -> None:
    ending = (note("client-protocol-error"), to_client(FAILURE), to_backend(CLOSE), close("client-protocol-error"))
    welcomed().client(STARTTLS, *ending).run()


def test_compression_is_refused() -> None:
    said = b"<compress xmlns='http://jabber.org/protocol/compress'><method>zlib</method></compress>"
    refused = b"<failure xmlns='http://jabber.org/protocol/compress'><setup-failed/></failure>"
    welcomed().client(said, to_client(refused)).passes(AUTH).run()


def test_a_client_that_leaves_is_let_go_by_both() -> None:
    more = b"<iq type='get' id='1'/>"
    welcomed().asks(CLOSE, more + CLOSE, close("quit")).run()
    welcomed().passes(CLOSE).ended(BACKEND, True, to_client(CLOSE), close("quit")).run()
    lost = (ABORT_BACKEND, close("client-lost"))
    welcomed().passes(CLOSE).ended(CLIENT, False, *lost).run()
    welcomed().ended(CLIENT, True, to_backend(CLOSE), close("client-closed")).run()


def test_stanzas_before_the_login_pass_as_they_are() -> None:
    said = b" \n<iq type='set'  id=\"1\"><query xmlns='jabber:iq:register'><password>p</password></query></iq>"
    welcomed().passes(said).run((WHOLE,))


@pytest.mark.parametrize(("said", "condition"), [
    (b"<a>" * 40, b"policy-violation"), (b"<a b='" + b"x" * 65536, b"policy-violation"),
    (b"<!DOCTYPE x>", b"restricted-xml"), (b"<a>&x;</a>", b"restricted-xml"), (b"</a>", b"not-well-formed"),
    (b"xxxxx", b"bad-format"),
])  # fmt: skip
def test_garbage_of_each_side_ends_the_session(said: bytes, condition: bytes) -> None:
    ending = (to_client(error(condition)), to_backend(CLOSE), close("client-protocol-error"))
    welcomed().client(said, note("client-protocol-error"), *ending).run((WHOLE, 999))
    told = to_client(error(b"internal-server-error"))
    welcomed().backend(said, *malformed(told, key="backend-protocol-error")).run((WHOLE, 999))


def test_a_lost_backend_is_told() -> None:
    ending = (note("backend-closed"), to_client(error(b"remote-connection-failed")), ABORT_BACKEND)
    welcomed().ended(BACKEND, True, *ending, close("backend-closed")).run()


# --- the configuration, and a look -------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["auth-only", "optional"])
def test_tls_cannot_be_left_to_the_client(policy: str) -> None:
    text = "[tls]\ncertificate = c.pem\n[service:xmpp]\nstarttls = 5222\nbackend = a:5222\npolicy = "
    with pytest.raises(ConfigurationError, match=f"xmpp does not support {policy}; write required, or remove it"):
        parse(text + policy, "gw.ini", DIALECTS, Machine())
    assert parse(text + "required", "gw.ini", DIALECTS, Machine()).services[0].policies == ("required",)


def look(dialect: Dialect, greeting: bytes) -> Survey:
    """At a backend that greets so."""
    question = dialect.question
    assert question is not None
    looking = Looking(dialect)
    looking.play.dialled(to_backend(question.ask(b"gw.example.org")))
    looking.play.backend(greeting, to_backend(CLOSE)).backend(CLOSE, close("quit"))
    return looking.found()


def test_a_look_tells_ways_to_log_in() -> None:
    for dialect, answers, dress in ((DIALECT, xmpp.ANSWERS, bytes), (SERVERS, xmpp_server.ANSWERS, servers)):
        seen = answers.look
        assert seen is not None
        survey = look(dialect, seen.exchanges[0].answered)
        assert (survey.offered, survey.shown, survey.access.logins) == (seen.offered, seen.shown, seen.logins)
        assert survey.access.starttls is (dialect is DIALECT)
        survey = look(dialect, dress(answer(b"<stream:features/>")))
        assert (survey.access.logins, survey.access.refusal) == ((), b"the stream features offer no login")
    survey = look(DIALECT, answer(b"").replace(b" version='1.0' id", b" id"))
    assert survey.access.logins is None


def test_what_a_server_says_is_told_in_words() -> None:
    question = DIALECT.question
    assert question is not None
    assert question.readable(answer(OFFER) + PROCEED + GREETING) == b"Features: mechanism PLAIN, mechanism SCRAM-SHA-1"
    assert question.readable(answer(b"<stream:features/>")) == b"Features: none"
    assert question.readable(answer(error(b"host-unknown"))) == b"stream error host-unknown"
    for other in (b"220 hi", b"<stream:stream >&x;", answer(CLOSE)):
        assert question.readable(other) == other


# --- every position ----------------------------------------------------------------------------------


SCRAM = [(CLIENT, auth(b"SCRAM-SHA-1")), (BACKEND, CHALLENGE), (CLIENT, RESPONSE), (BACKEND, SUCCESS), (CLIENT, HEADER)]
EDITED = answer(features(b"PLAIN", b"EXTERNAL", more=STARTTLS))
DENYING = [(CLIENT, auth(b"EXTERNAL")), (CLIENT, AUTH), (BACKEND, DENIED), (CLIENT, CLOSE), (BACKEND, CLOSE)]


@pytest.mark.parametrize(("party", "said"), [
    (CLIENTS, [(CLIENT, HEADER), (BACKEND, GREETING), *SCRAM]),
    (CLIENTS, [(CLIENT, HEADER), (BACKEND, EDITED), *DENYING]),
    (PEERS, [(CLIENT, xmpp_server.HEADER), (BACKEND, xmpp_server.GREETING), (CLIENT, KEY), (BACKEND, VALID)]),
], ids=["scram", "denied", "dialback"])  # fmt: skip
def test_the_same_session_follows_wherever_the_network_cuts(party: Caller, said: list[tuple[Side, bytes]]) -> None:
    told = set()
    clear = party.answers.starttls.said
    for size in range(max(len(octets) for _, octets in [*said, (CLIENT, clear)]) + 1):
        stage = Stage(party.dialect, terms(), size)
        stage.take(stage.negotiation.start())
        stage.receive(CLIENT, clear)
        stage.secured(TLS13)
        for side, octets in said:
            stage.receive(side, octets)
            if isinstance(stage.negotiation.waiting, Dial):
                stage.take(stage.negotiation.dialled())
        told.add((stage.heard_by(CLIENT), stage.heard_by(BACKEND), stage.spliced, stage.negotiation.over))
    assert len(told) == 1
    ((heard, *_),) = told
    assert heard.startswith(party.answers.starttls.answered)


@pytest.mark.parametrize(("said", "condition"), [
    (b"<iq><query xmlns='jabber:iq:auth'><password>sec&ret</password></query></iq>", b"not-well-formed"),
    (b"<iq><query xmlns='jabber:iq:auth'><password>sec<ret</password></query></iq>", b"not-well-formed"),
    (b"<password>sec" + b"x" * 65536, b"policy-violation"),
])  # fmt: skip
def test_no_password_is_told_with_a_fault(said: bytes, condition: bytes) -> None:
    ending = (to_client(error(condition)), to_backend(CLOSE), close("client-protocol-error"))
    play = welcomed().client(said, note("client-protocol-error"), *ending).run((WHOLE,))
    assert not [each for each in play.notes if "sec" in repr(each)]
