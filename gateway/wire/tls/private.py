"""The private names of pyOpenSSL that the gateway uses. No other module uses one, and a test checks that.

`OpenSSL._util` has two of them, `lib` (OpenSSL's functions) and `ffi` (memory of C):

* `SSL_read`, `SSL_write`, `BIO_read`, `BIO_write`, `SSL_get_error`, `SSL_ERROR_WANT_READ` and `SSL_ERROR_ZERO_RETURN`
  move octets through a connection in memory. pyOpenSSL's own methods allocate a buffer for each call and raise an
  exception at each end of data. With them a short round trip takes 15 % more CPU, and so does a transfer.
* `BIO_get_mem_data` tells how many octets a BIO in memory holds. A look costs a third of a read that finds nothing.
* `SSL_session_reused` tells whether a handshake resumed an earlier session. pyOpenSSL has no name for it.
* `SSL_do_handshake` goes on with a handshake. pyOpenSSL's method raises an exception when it waits for the other end,
  as each handshake does twice.
* `new`, `new_allocator`, `buffer`, `from_buffer` and `unpack` make the memory that these functions use, and read it.
* `BIO_new`, `BIO_s_mem` and `SSL_set_bio` give a connection new BIOs in memory, as pyOpenSSL does for a new connection.
* `SSL_CTX_set1_curves_list` sets a list of groups. The public `set_tmp_ecdh` sets only one. `ERR_clear_error` removes
  the error that an unknown group leaves behind.
* `SSL_CTX_set_session_cache_mode` and `SSL_SESS_CACHE_SERVER` make a context remember TLS sessions.
* `SSL_CTX_set_session_id_context` sets what a TLS session must have in common with a connection to be resumed there.
  pyOpenSSL's method refuses to set it once a connection was made.

Of pyOpenSSL's objects:

* `Connection`: `_ssl`, `_into_ssl` and `_from_ssl` are the C objects that these functions take, and `_raise_ssl_error`
  raises the SSL.Error for what they return.
* `Context`: `_context` is the C object with the list of groups and the session id context.

None of these names has changed in ten years. If one is gone, every test of TLS fails at once; use pyOpenSSL's own
methods then. Only `SSL_CTX_set1_curves_list` may be missing: OpenSSL's own list of groups stays, which is good, only
longer.
"""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL
from OpenSSL._util import ffi as _ffi
from OpenSSL._util import lib as _lib

ssl_read, ssl_write, bio_read, bio_write = _lib.SSL_read, _lib.SSL_write, _lib.BIO_read, _lib.BIO_write
ssl_shake: Any = _lib.SSL_do_handshake
ssl_error: Any = _lib.SSL_get_error
bio_data: Any = _lib.BIO_get_mem_data
ssl_resumed: Any = _lib.SSL_session_reused
WANT_READ: Final[int] = _lib.SSL_ERROR_WANT_READ
ZERO_RETURN: Final[int] = _lib.SSL_ERROR_ZERO_RETURN
memory_of, octets_of = _ffi.from_buffer, _ffi.unpack
"""A Python buffer as C memory; so many octets of C memory, copied."""

nowhere: Final[Any] = _ffi.new("char **")
"""`bio_data` writes an address here that nobody reads: its result is the number of octets in a memory BIO."""


_unwritten: Final[Any] = _ffi.new_allocator(should_clear_after_alloc=False)
"""Memory that nobody has written to costs nothing yet."""


class Space:
    """Memory that C writes to, and Python reads."""

    __slots__ = ("memory", "view")

    def __init__(self, size: int) -> None:
        """`size` in octets."""
        self.memory: Final[Any] = _unwritten("char[]", size)
        self.view: Final = memoryview(_ffi.buffer(self.memory))


def handles(connection: SSL.Connection) -> tuple[Any, Any, Any]:
    """The SSL object of a connection in memory, the BIO for what comes in, and the BIO for what goes out.

    They live as long as the connection does.
    """
    inside: Any = connection
    return inside._ssl, inside._into_ssl, inside._from_ssl


def renew(connection: SSL.Connection) -> tuple[Any, Any]:
    """Give a connection in memory new BIOs: for what comes in, and for what goes out. The old ones must be empty."""
    inside: Any = connection
    into, out = _lib.BIO_new(_lib.BIO_s_mem()), _lib.BIO_new(_lib.BIO_s_mem())
    if not into or not out:
        raise MemoryError
    _lib.SSL_set_bio(inside._ssl, into, out)
    inside._into_ssl, inside._from_ssl = into, out
    return into, out


def raise_error(connection: SSL.Connection, result: int) -> None:
    """Raise the SSL.Error for the result of `ssl_read`, `ssl_write` or `ssl_shake`, or what a callback has raised.

    Does nothing if there was no error.
    """
    inside: Any = connection
    inside._raise_ssl_error(inside._ssl, result)


def set_scope(context: SSL.Context, scope: bytes) -> None:
    """Connections that are made from now on resume only TLS sessions of this scope: up to 32 octets.

    The context then remembers sessions: curl takes no tickets with TLS 1.2."""
    inside: Any = context
    _lib.SSL_CTX_set_session_cache_mode(inside._context, _lib.SSL_SESS_CACHE_SERVER)
    if _lib.SSL_CTX_set_session_id_context(inside._context, scope, len(scope)) != 1:
        raise MemoryError


def set_groups(context: SSL.Context, groups: bytes) -> bool:
    """Offer and accept these groups only. False if this OpenSSL does not know one of them: nothing has changed then."""
    choose = getattr(_lib, "SSL_CTX_set1_curves_list", None)
    if choose is None:
        return False
    inside: Any = context
    if choose(inside._context, groups) == 1:
        return True
    _lib.ERR_clear_error()
    return False
