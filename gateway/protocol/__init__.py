"""What a session says and does: knows no protocol by name, no socket and no clock."""
