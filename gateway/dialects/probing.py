"""What a protocol must bring for `probe`, which looks at a server from outside (talk.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..protocol.vocabulary import Framing
from ..records import dataclass
from .bounds import REPLIES

HOST = b"{host}"
"""In commands of a protocol whose question is `addressed`: the name of the server."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login up to the point where a client would say a secret.  No secret is ever said."""

    say: bytes
    """The command, without CRLF; or a whole unit."""
    taken: Callable[[bytes], bool]
    """The reply -> whether the server now waits for the secret, or would have taken it."""
    cancel: bytes = b""
    """What takes the login back, without CRLF; nothing where nothing has to be taken back."""
    name: bytes = b""
    """What people are told of it, where that is not `say`."""


@dataclass(frozen=True, slots=True)
class Probing:
    """What a protocol must bring so that its servers can be probed."""

    port: int
    """Where no port is given."""
    implicit: frozenset[int]
    """Ports on which TLS comes first (RFC 8314 7)."""
    starttls: bytes
    """The command, without CRLF."""
    injected: bytes
    """A harmless command that any server answers, without CRLF.  It is sent behind STARTTLS in the clear.  Nothing
    where it is the question itself."""
    complete: Callable[[bytes, bytes], bool]
    """A command (nothing for the greeting) and the lines heard since -> whether the reply is complete."""
    agrees: Callable[[bytes], bool]
    """A greeting, or the reply to STARTTLS -> whether the server agrees."""
    attempts: tuple[Attempt, ...]
    reissues: bool = False
    """The server speaks first again inside TLS after STARTTLS (RFC 5804 2.2)."""
    masked: Callable[[Sequence[bytes]], bool] = lambda capabilities: False
    """The capabilities -> whether something on the way has overwritten one."""
    framing: Callable[[bytes], Framing] = lambda command: REPLIES
    """A command -> how the reply to it becomes lines or units.  Commands are whole units where it is not `Lines`."""
    greets: bool = True
    """The server speaks first.  Where it does not, STARTTLS is the first that is said."""
    leaves: bool = True
    """The command that ends a session may be said at any time, and a server that greets answers it."""
    lists: bool = True
    """The list of capabilities names STARTTLS and the logins, and STARTTLS only before TLS."""
    opens: bool = False
    """The question begins the talk, and begins it again inside TLS; the server greets with the answer.  One framing
    lasts for all that follows from it."""
    addressed: bool = False
    """The question names the server, and not who asks."""
    keeps: Callable[[bytes], bytes] | None = None
    """hostname -> what is asked in the clear in place of the question, if the server closes behind that."""
    offers: Callable[[bytes], bool] | None = None
    """The greeting -> whether TLS may follow.  STARTTLS has no answer but TLS there, and nothing else is said, as the
    next words of a client would be its login."""
    heads: bool = False
    """How a reply went is said in its first line, and not in the last one."""
    silent: bool = False
    """A server may say nothing to a command that it does not know."""
