"""MySQL: what MariaDB 10.11 and its clients say."""

from __future__ import annotations

from tests.pure.contract.form import Apart, Exchange, Look


def packet(number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


def greeting(plugin: bytes = b"mysql_native_password", ssl: bool = False) -> bytes:
    """As MariaDB 10.11 has it."""
    flags = b"\xfe\xff" if ssl else b"\xfe\xf7"
    more = b"\x08\x02\x00\xff\x81\x15" + bytes(6) + b"\x1d\0\0\0"
    return packet(
        0, b"\n5.5.5-10.11.19-MariaDB\0\x0a\0\0\x004FATctA#\0" + flags + more + b"*Ir%[zv`]2#V\0" + plugin + b"\0"
    )


def login(
    number: int,
    user: bytes = b"joe",
    plugin: bytes = b"mysql_native_password",
    ssl: bool = True,
    auth: bytes = b"x" * 20,
) -> bytes:
    """Capabilities of the mariadb client."""
    flags = b"\x84\xaa\xbf\0" if ssl else b"\x84\xa2\xbf\0"
    fixed = flags + b"\0\0\0\x10\x21" + bytes(19) + b"\x1d\0\0\0"
    return packet(number, fixed + user + b"\0" + bytes([len(auth)]) + auth + plugin + b"\0" + b"\x07\x03_os\x02Li")


def error(number: int, code: int, state: bytes, text: bytes) -> bytes:
    return packet(number, b"\xff" + code.to_bytes(2, "little") + (b"#" + state if number else b"") + text)


SSL_REQUEST = packet(1, b"\x84\xaa\xbf\0\0\0\0\x10\x21" + bytes(19) + b"\x1d\0\0\0")
STRANGER = packet(
    1, bytes.fromhex("00820800 00000100 21") + bytes(23) + b"starttls-gateway-check\0\0starttls_gateway\0"
)
DENIED = error(2, 1045, b"28000", b"Access denied for user 'starttls-gateway-check'@'10.0.0.4' (using password: NO)")

NATIVE = packet(2, b"\xfemysql_native_password\0" + b"s" * 20 + b"\0")
QUIT = packet(0, b"\x01")

ANSWERS = Apart(
    unavailable=error(0, 1105, b"", b"the database server cannot be reached"),
    busy=error(0, 1040, b"", b"too many connections"),
    alpn=(),
    idle=86400,
    first=10,
    look=Look((Exchange(STRANGER, NATIVE), Exchange(QUIT, b"")), [], [], ("mysql_native_password",)),
)
