"""FTP: RFC 959, RFC 2228, RFC 2389, RFC 4217."""

from __future__ import annotations

from tests.pure.contract.form import Exchange, Look, alike

UNAVAILABLE = b"421 Service not available, closing control connection\r\n"
LOST = b"421 Connection to FTP server lost\r\n"
INVALID = b"421 Invalid protocol\r\n"
MUST = b"530 Must issue AUTH TLS first\r\n"
LISTED = (
    b"211-Extensions supported:\r\n AUTH TLS;SSL;\r\n PBSZ\r\n PROT\r\n CCC\r\n EPRT\r\n EPSV\r\n ESTP\r\n SPSV\r\n"
    b" MLST type*;size*;\r\n REST STREAM\r\n UTF8\r\n211 End.\r\n"
)
KEPT = b"211-Extensions supported:\r\n EPSV\r\n MLST type*;size*;\r\n REST STREAM\r\n UTF8\r\n"

ANSWERS = alike(
    greeting=b"220-Welcome\r\n You are user 1 of 10\r\n220-\r\n220 ready\r\n",
    refusal=b"421 too many users\r\n",
    no_greetings=(b"+OK hi\r\n", b"* OK\r\n", b"200 x\r\n", b"\r\n", b"230 x\r\n", b"2200 x\r\n", b"220x\r\n",
                  b"331 x\r\n", b"22\r\n", b" 220 x\r\n", b"\x1b[2J220 x\r\n", b"SSH-2.0-x\r\n"),
    unavailable=UNAVAILABLE,
    lost=LOST,
    timed_out=b"421 Timeout\r\n",
    stopping=UNAVAILABLE,
    busy=b"421 Too many connections\r\n",
    lazy_greeting=b"220 gw.example.org ready\r\n",
    alpn=(b"ftp",),
    proxied=False,
    options=frozenset({
        "passive_ports", "passive_address", "active", "protection", "data_session_reuse", "strict_close", "log_files",
    }),
    idle=960,
    words=b"USER PASS ACCT AUTH TLS FEAT PBSZ PROT P C 0 PASV EPSV ALL PORT EPRT 192,0,2,1,4,1 |1|192.0.2.1|1025| RETR "
    b"STOR LIST ABOR STAT NOOP QUIT REST CCC 150 200 211 211- 220 226 227 229 230 331 421 425 500 530 (1,2,3,4,5,6) "
    b"(|||5000|) x",
    before_tls=rb"(?i:FEAT|SYST|NOOP|OPTS|HOST|CLNT|QUIT)[^\r\n]*\r\n",
    starttls=Exchange(b"AUTH TLS\r\n", b"234 Proceed with negotiation\r\n"),
    starttls_again=b"503 TLS already active\r\n",
    closed=Exchange(b"CWD /\r\n", MUST),
    closed_login=MUST,
    command=Exchange(b"PWD\r\n", b'257 "/" is the current directory\r\n'),
    listing=Exchange(b"FEAT\r\n", LISTED),
    listing_closed=KEPT + b" AUTH TLS\r\n PBSZ\r\n PROT\r\n211 End.\r\n",
    listing_open=KEPT + b" AUTH TLS\r\n PBSZ\r\n PROT\r\n211 End.\r\n",
    listing_inside=KEPT + b" PBSZ\r\n PROT\r\n211 End.\r\n",
    login=b"PASS secret\r\n",
    accepted=b"230 in\r\n",
    rejected=b"530 no\r\n",
    postponed=b"450 later\r\n",
    named=None,
    logins=(b"USER joe\r\n", b"pass secret\r\n", b"ACCT sales\r\n"),
    splices=False,
    leave=Exchange(b"QUIT\r\n", b"221 bye\r\n"),
    farewell=b"QUIT\r\n",
    bad=Exchange(b"REIN\r\n", b"502 Command not implemented\r\n"),
    unclean=(
        Exchange(b"NOOP\0\r\n", b"501 Invalid characters\r\n"),
        Exchange(b"NOOP\rDELE x\r\n", b"501 Invalid characters\r\n"),
    ),
    long=lambda octets: b"NOOP " + b"x" * octets + b"\r\n",
    long_answer=b"500 Line too long\r\n",
    endless=(b"x" * (80 * 1024),),
    endless_words=b"421 Line too long\r\n",
    too_many_bad=b"421 Too many invalid commands\r\n",
    too_many_logins=b"421 Too many failed logins\r\n",
    limited=b"430 Too many failed logins, try again later\r\n",
    http_words=INVALID,
    proxy_words=INVALID,
    proxy2_words=b"500 Syntax error\r\n" * 2 + b"501 Invalid characters\r\n221 Goodbye\r\n",
    proxy2_reason="quit",
    part=b"257 tw",
    garbage=b"+OK\r\n",
    unasked=b"200 hi\r\n",
    offer=b"220 ready\r\n",
    asks=(),
    backend_starttls=Exchange(b"AUTH TLS\r\n", b"234 Proceed with negotiation.\r\n"),
    welcome=b"220 ready\r\n",
    welcome_inside=b"220 ready\r\n",
    offer_inside=b"220 ready\r\n",
    no=(b"500 what\r\n", b"502 x\r\n", b"530 login first\r\n", b"334 ADAT\r\n", b"234-a\r\n234 b\r\n", b"200 x\r\n"),
    look=Look(
        (
            Exchange(b"FEAT\r\n", LISTED),
            Exchange(b"USER starttls-gateway-check\r\n", b"331 password?\r\n"),
            Exchange(b"QUIT\r\n", b"221 bye\r\n"),
        ),
        [b"AUTH TLS;SSL;", b"PBSZ", b"PROT", b"CCC", b"EPRT", b"EPSV", b"ESTP", b"SPSV", b"MLST type*;size*;",
         b"REST STREAM", b"UTF8"],
        [b"EPSV", b"MLST type*;size*;", b"REST STREAM", b"UTF8", b"PBSZ", b"PROT"],
        ("USER",),
    ),
)  # fmt: skip
