"""What the fuzzer has found and what it begins with, once more in every run of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import SEPARATOR, TARGETS

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_corpus_fails_nowhere_and_is_small(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    assert sum(path.stat().st_size for path in inputs) <= 4096
    for path in inputs:
        TARGETS[name](path.read_bytes())


STEPS = st.lists(
    st.tuples(st.sampled_from(b"CCCCBBBBcbdUFEeRrXS"), st.binary(max_size=20).map(lambda octets: octets.replace(SEPARATOR, b"")))
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["smtp", "imap", "pop3"]),
    st.binary(min_size=4, max_size=4),
    st.lists(
        st.sampled_from(
            [
                b"C*", b"B220 hi\r\n", b"B* OK hi\r\n", b"B+OK hi\r\n", b"CEHLO a\r\n", b"CSTARTTLS\r\n", b"Ca STARTTLS\r\n",
                b"CSTLS\r\n", b"B250 ok\r\n", b"Ba OK\r\n", b"B+OK\r\n", b"F", b"U", b"E", b"e", b"R", b"r", b"Xb", b"Xc",
                b"S", b"CAUTH PLAIN AGEAYg==\r\n", b"Ca LOGIN {3+}\r\nx y\r\n", b"CUSER x\r\n", b"CMAIL FROM:<a>\r\n",
                b"CRCPT TO:<a>\r\n", b"CDATA\r\n", b"B354 go\r\n", b"C\n.\n\r\n.\r\n", b"CBDAT 5\r\nabcde",
            ]
        ),
        max_size=25,
    ).map(SEPARATOR.join),
)  # fmt: skip
def test_sessions_in_any_order_of_steps(protocol: str, flags: bytes, steps: bytes) -> None:
    TARGETS[protocol](flags + steps)


@given(st.sampled_from(["message", "proxy", "lists", "config"]), st.binary(max_size=300))
def test_octets_of_any_kind(name: str, octets: bytes) -> None:
    TARGETS[name](octets)
