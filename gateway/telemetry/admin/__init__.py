"""The admin listener: metrics, health, open sessions and a status page over HTTP.  Read-only."""
