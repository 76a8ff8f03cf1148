"""IRC and XMPP."""
