"""The publishing side: signing keys, the signed repository of bundles, and a small static HTTP server."""
