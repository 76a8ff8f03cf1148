"""Why something in the file of another program is not carried over, and what to do instead."""

from __future__ import annotations

NOTHING = "the gateway has no such option"
PROFILES = "profile chooses versions, ciphers and groups (docs/tls.md)"
TIMES = "the gateway has the times of each protocol's RFC"
SYSTEM = "twistd or systemd does this (docs/operation.md)"
IN_ORDER = "the gateway tries the addresses in their order"
UNUSED = "no service that is carried over uses it"
RULES = "there are no rules; [limits] and ban restrict clients"
UNCHECKED = "no certificate is checked by it"
PROCESSES = "workers in [gateway] sets the number of processes"
BACKEND_NAME = "the gateway asks the backend for name, or else for the host in address"
OLD_TLS = "write profile = legacy, and in legacy_clients the addresses that need it"
