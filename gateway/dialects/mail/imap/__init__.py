"""IMAP (RFC 3501, RFC 9051).

Each layer is a class: `greeting`, `literals`, `exchange`, `commands`; `syntax` and `capabilities` are pure functions.
"""

from .commands import DIALECT as DIALECT
