"""SMTP, IMAP and POP3."""

from ..conversation import foreign

FOREIGN = foreign("http-on-mail-port")
