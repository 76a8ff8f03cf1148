"""SMTP, IMAP, POP3 and ManageSieve."""

from ..conversation import foreign

FOREIGN = foreign("http-client")
