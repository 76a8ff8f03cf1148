"""What Twisted itself makes of it: its own TLS transport in front of its own port forward, and nothing else.

python -m benchmarks.forward CERTIFICATE KEY PORT BACKEND_PORT
"""

from __future__ import annotations

import sys
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.protocols.portforward import ProxyFactory


def main() -> None:
    certificate, key, port, backend = sys.argv[1:]
    # Twisted annotates neither.
    make_tls: Any = DefaultOpenSSLContextFactory
    loop: Any = reactor
    tls = make_tls(key, certificate, sslmethod=SSL.TLS_SERVER_METHOD)
    loop.listenSSL(int(port), ProxyFactory("127.0.0.1", int(backend)), tls, 1024, "127.0.0.1")
    loop.run()


if __name__ == "__main__":
    main()
