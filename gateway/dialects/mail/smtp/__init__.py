"""SMTP, submission and submissions (RFC 5321, 6409, 8314).

Each layer is a class: `exchange`, `greeting`, `messages`, `commands`.
"""

from .commands import DIALECT as DIALECT
