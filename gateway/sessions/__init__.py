"""What carries out the decisions: sessions with a client, errands without one."""
