"""Links to other sites, as far as they can be looked at without a network.

python -m tests.links   # lists what is wrong: file, line, what.  `make docs-links` asks the other sites.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.prose import ROOT

FILES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "benchmarks" / "README.md",
    ROOT / "setup.cfg",
    *(ROOT / "debian" / name for name in ("control", "copyright")),
    ROOT / "config" / "gateway.ini",
    *sorted((ROOT / "config" / "systemd").iterdir()),
]
URL = re.compile(r"\bhttps?://[^\s<>\"'`|)]*[^\s<>\"'`|).,;:/]/?", re.I)
HOST = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+")
# Names of examples (RFC 2606), of this machine, and namespaces of XML, which nobody fetches.
NO_SITE = re.compile(
    r"(?:.*\.)?(?:example(?:\.(?:org|com|net))?|test|invalid|localhost)|127\.0\.0\.1|mta-sts\.DOMAIN|(?:etherx\.)?jabber\.org"
)
RFC = re.compile(r"(?i)\brfcs?([ -]*)(\d+)( \d)?")
RFCS = frozenset(
    re.findall(
        r"\d+",
        "821 822 854 959 977 1035 1112 1123 1639 1845 1870 1918 1939 1985 2033 2034 2180 2195 2228 2244 2389 2428 2449"
        " 2554 2595 2606 2645 2812 2817 2831 2852 2920 2971 2980 3030 3062 3206 3207 3461 3463 3501 3659 3848 3865 3885"
        " 3909 3920 3977 4141 4217 4291 4405 4422 4468 4505 4511 4512 4513 4514 4519 4532 4616 4642 4643 4644 4865 4954"
        " 5034 5248 5280 5321 5322 5336 5424 5480 5530 5737 5746 5802 5804 5890 6066 6120 6152 6177 6409 6531 6598 6666"
        " 6698 6710 6750 6840 6856 7162 7292 7293 7301 7468 7590 7617 7622 7628 7671 7672 7817 7888 8010 8054 8143 8314"
        " 8446 8461 8689 8996 9051 9110 9112 9260 9325 9422 9525",
    )
)
"""Those that the pages name.  Look a new one up before you write it here."""


def spelling(url: str) -> str:
    """The same for all ways to write the same place."""
    parts = urlsplit(url.lower())
    path = parts.path.rstrip("/").removesuffix(".git").removesuffix("/index.html")
    return f"{(parts.hostname or '').removeprefix('www.')}{path}?{parts.query}"


def complaints(texts: dict[str, str]) -> Iterator[tuple[str, int, str]]:
    """File, line, what is wrong there."""
    seen: dict[str, str] = {}
    for name, text in texts.items():
        for number, line in enumerate(text.split("\n"), 1):
            for url in URL.findall(line):
                host = urlsplit(url).netloc
                if NO_SITE.fullmatch(host.partition(":")[0]):
                    continue
                if not url.startswith("https://"):
                    yield name, number, f"{url}: write https://"
                if not HOST.fullmatch(host):
                    yield name, number, f"{url}: {host!r} is no host"
                first = seen.setdefault(spelling(url), url.partition("#")[0])
                if url.partition("#")[0] != first:
                    yield name, number, f"{url}: elsewhere it is {first}"
            for gap, digits, part in RFC.findall(re.sub(r"`[^`]*`", "", URL.sub("", line))):
                if gap != " " or part:
                    yield name, number, f"RFC {digits}: write RFC {digits}, or RFC {digits}, section 1.2"
                if digits not in RFCS:
                    yield (
                        name,
                        number,
                        f"RFC {digits}: look up whether it is the right one, and add it to tests/links.py",
                    )


def main() -> int:
    found = list(complaints({str(file.relative_to(ROOT)): file.read_text("utf-8") for file in FILES}))
    for name, line, what in found:
        print(f"{name}:{line}: {what}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
