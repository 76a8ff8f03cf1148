"""Everything that knows OpenSSL: contexts, certificates, and TLS as a function from octets to octets."""
