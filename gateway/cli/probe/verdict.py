"""What is wrong with a server, judged by the facts alone."""

from __future__ import annotations

from collections.abc import Iterator

from ...telemetry.words import counted
from ..report import Problem
from .facts import Facts

SOON = 14
"""Days left of a certificate below which it should have been renewed: most are renewed 30 days before their end."""
OLD = ("TLSv1.1", "TLSv1")
"""Forbidden by RFC 8996."""
POST_QUANTUM = "X25519MLKEM768"


def findings(facts: Facts) -> list[Problem]:
    """Everything that puts somebody's mail or password at risk, or keeps clients out."""
    if facts.unreachable:
        return []
    found = [*_starttls(facts), *_injection(facts), *_logins(facts)]
    if facts.secured:
        found += [*_versions(facts), *_certificate(facts)]
    return [*found, *_dns(facts)]


def _starttls(facts: Facts) -> Iterator[Problem]:
    if facts.behind:
        return  # told as an injection
    if facts.implicit:
        if not facts.secured:
            cure = "look whether this port begins with TLS; for a port with STARTTLS say --starttls"
            yield Problem("no-tls", f"no TLS from the first octet: {facts.failure}", cure)
        return
    if facts.masked:
        detail = "something on the way, or in front of the server, overwrites STARTTLS in the server's list"
        cure = "switch off the SMTP inspection of the firewall (Cisco: no fixup protocol smtp, no inspect esmtp)"
        yield Problem("starttls-stripped", detail, cure)
    elif facts.offered is False and facts.secured:
        detail = "STARTTLS works, but the server's list does not name it: something on the way takes it out"
        cure = "compare with a probe from the server's own network; look for a firewall or proxy that reads mail"
        yield Problem("starttls-stripped", detail, cure)
    elif facts.offered is False:
        answered = f", and is answered {facts.go_ahead!r}" if facts.go_ahead else ""
        detail = f"STARTTLS is not offered{answered}: everything is said in the clear"
        cure = (
            "switch TLS on, or put the gateway in front; if the server does offer it, something on the way takes it "
            "out: compare with a probe from the server's own network"
        )
        yield Problem("no-starttls", detail, cure)
    if facts.secured or (facts.offered is False and facts.failure == "the server refuses it"):
        return
    if facts.go_ahead and facts.failure == "the server refuses it" and facts.offered is None:
        detail = f"STARTTLS is answered {facts.go_ahead!r}: everything is said in the clear"
        yield Problem("no-starttls", detail, "switch TLS on, or put the gateway in front")
    elif facts.go_ahead and facts.failure == "the server refuses it":
        detail = f"STARTTLS is offered, and then refused: {facts.go_ahead}"
        yield Problem("starttls-refused", detail, "look into the server's log: often it cannot read its certificate")
    else:
        yield Problem("tls-failed", facts.failure, "look into the server's log for this handshake")


def _injection(facts: Facts) -> Iterator[Problem]:
    if facts.behind:
        detail = f"what stands behind the go-ahead in the clear would be taken for the server's words: {facts.behind}"
        cure = "update the server; if it is up to date, somebody on the way writes into the connection"
        yield Problem("response-injection", detail, cure)
    if facts.injection:
        detail = f"a command sent in the clear behind STARTTLS is run inside TLS (CVE-2011-0411): {facts.executed}"
        yield Problem("command-injection", detail, "update the server, or put the gateway in front of it")


def _logins(facts: Facts) -> Iterator[Problem]:
    taken = [login for login in facts.tried if login.taken]
    if facts.bare:
        detail = f"the server offers {', '.join(facts.bare)} before TLS, so clients send passwords in the clear"
    elif taken:
        asked = ", ".join(f"{login.command} ({login.answer})" for login in taken)
        detail = f"the server does not offer a login before TLS, but asks for the password all the same: {asked}"
    else:
        return
    cure = (
        "refuse logins before TLS (Postfix: smtpd_tls_auth_only = yes; Dovecot: disable_plaintext_auth = yes, since "
        "2.4 auth_allow_cleartext = no; OpenLDAP: olcSecurity: simple_bind=128; PostgreSQL: hostssl), or put the "
        "gateway in front with policy = required"
    )
    yield Problem("credentials-in-the-clear", detail, cure)


def _versions(facts: Facts) -> Iterator[Problem]:
    accepted = [one for one in facts.versions if one.accepted]
    old = [one.name for one in accepted if one.name in OLD]
    if old and len(old) == len(accepted):
        detail = f"nothing better than {old[0]}, which clients of today refuse (RFC 8996)"
        yield Problem("old-tls-only", detail, "update the server, or put the gateway in front of it")
    elif old:
        detail = f"{', '.join(old)} {'are' if len(old) > 1 else 'is'} accepted (RFC 8996 forbids it)"
        cure = "allow TLS 1.2 and later only, unless some client still needs it (gateway: legacy_clients)"
        yield Problem("old-tls", detail, cure)
    for one in accepted:
        if one.name == "TLSv1.2" and not one.detail.startswith(("ECDHE-", "DHE-")):
            detail = f"TLS 1.2 chooses {one.detail}: who records the connection and gets the key later can read it"
            yield Problem("no-forward-secrecy", detail, "put ECDHE suites first in the server's list")


def _certificate(facts: Facts) -> Iterator[Problem]:
    chain = facts.chain
    if chain is None:
        yield Problem("certificate", "the certificate cannot be read", "replace it")
        return
    for objection in chain.objections:
        if "expired" in objection:
            yield Problem("certificate-expired", objection, "renew it, and make the server load it")
        elif objection.startswith("certificate is for") or "subjectAltName" in objection:
            cure = "get a certificate for the name that clients use, or say the right name with --name"
            yield Problem("certificate-name", objection, cure)
        else:
            cure = (
                "use a certificate of an issuer that clients know, and send its intermediate certificates along; "
                "for an issuer of your own say --ca FILE"
            )
            yield Problem("certificate-untrusted", objection, cure)
    if 0 <= chain.days_left < SOON:
        left = f"only {counted(chain.days_left, 'day')} left"
        yield Problem("certificate-expires", left, "renew it; look why that is not done by itself")
    if chain.weakness:
        detail, _, cure = chain.weakness.partition("; ")
        yield Problem("certificate-weak", detail, cure)


def _dns(facts: Facts) -> Iterator[Problem]:
    dane, sts = facts.dane, facts.sts
    if dane is not None and dane.secure and dane.matches is False:
        detail = "no TLSA record in DNS fits the certificate: servers that use DANE do not deliver here"
        yield Problem("dane-mismatch", detail, "publish the digest of this certificate or key (RFC 7671)")
    if sts is not None and sts.error:
        cure = "mend the policy at https://mta-sts.DOMAIN/.well-known/mta-sts.txt, or take the TXT record away"
        yield Problem("mta-sts-broken", f"{sts.domain}: {sts.error}", cure.replace("DOMAIN", sts.domain))
    elif sts is not None and sts.asked and sts.mode in ("enforce", "testing") and not sts.lists_host:
        detail = f"the policy of {sts.domain} lists {', '.join(sts.mx) or 'no mx'}, and not {facts.name}"
        yield Problem("mta-sts-mismatch", detail, "add the host to the policy, and change the id in DNS")


def remarks(facts: Facts) -> Iterator[str]:
    """What is worth knowing and not wrong."""
    if facts.unreachable:
        return
    if facts.secured:
        newest = next((one for one in facts.versions if one.name == "TLSv1.3"), None)
        if newest is not None and newest.accepted is False:
            yield "TLS 1.3 is not there"
        for one in facts.groups:
            if one.name == POST_QUANTUM and one.accepted is False:
                yield "no post-quantum key exchange: a quantum computer could read later what is recorded today"
    if facts.starttls_inside:
        yield "STARTTLS is still offered inside TLS, which the RFCs forbid; some clients stumble over it"
    rest = [name for name in facts.logins or () if name not in facts.bare]
    if rest and not facts.implicit:
        yield f"before TLS the server offers {', '.join(rest)}: the password is not shown, but the session can be taken"
    if facts.dane is not None and facts.dane.records and not facts.dane.secure:
        yield "there are TLSA records, but the resolver does not vouch for them (no DNSSEC): nobody uses them"
    if facts.sts is not None and facts.sts.mode in ("testing", "none"):
        yield f"the MTA-STS policy of {facts.sts.domain} is in mode {facts.sts.mode}: it protects nobody yet"


def status(facts: Facts, found: list[Problem]) -> int:
    """The exit status: 0 good, 1 findings, 2 unreachable."""
    return 2 if facts.unreachable else 1 if found else 0
