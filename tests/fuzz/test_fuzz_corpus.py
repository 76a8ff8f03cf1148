"""What the fuzzer has found and what it begins with, once more in every run of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.dialects import DIALECTS
from tests.fuzz.targets import SEPARATOR, TARGETS

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_corpus_fails_nowhere_and_is_small(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    assert sum(path.stat().st_size for path in inputs) <= 4096
    for path in inputs:
        TARGETS[name](path.read_bytes())


STEPS = (
    b"C*|B220 hi\r\n|B* OK hi\r\n|B+OK hi\r\n|CEHLO a\r\n|CSTARTTLS\r\n|Ca STARTTLS\r\n|CSTLS\r\n|B250 ok\r\n"
    b"|Ba OK\r\n|B+OK\r\n|F|U|E|e|R|r|Xb|Xc|S|CAUTH PLAIN AGEAYg==\r\n|Ca LOGIN {3+}\r\nx y\r\n|CUSER x\r\n"
    b"|CMAIL FROM:<a>\r\n|CRCPT TO:<a>\r\n|CDATA\r\n|B354 go\r\n|C\n.\n\r\n.\r\n|CBDAT 5\r\nabcde"
    b"|C\0\0\0\x08\x04\xd2\x16\x2f|C\0\0\0\x08\x04\xd2\x16\x30|C\0\0\0\x12\0\3\0\0user\0joe\0\0|BS|BN"
    b'|B"SASL" "PLAIN"\r\nOK\r\n|CAUTHENTICATE "PLAIN" {8+}\r\nAGEAYg==\r\n|CFOO {9+}\r\nXCLIENT x\r\n|BOK {1}\r\nx\r\n'
    b"|C\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\1abcd|BR\0\0\0\x08\0\0\0\3|BR\0\0\0\x08\0\0\0\0|Cp\0\0\0\6x\0"
).split(b"|")


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(DIALECTS)),
    st.binary(min_size=4, max_size=4),
    st.lists(st.sampled_from(STEPS), max_size=25).map(SEPARATOR.join),
)
def test_sessions_in_any_order_of_steps(protocol: str, flags: bytes, steps: bytes) -> None:
    TARGETS[protocol](flags + steps)


@given(st.sampled_from(["message", "proxy", "lists", "sieve-lists", "config"]), st.binary(max_size=300))
def test_octets_of_any_kind(name: str, octets: bytes) -> None:
    TARGETS[name](octets)
