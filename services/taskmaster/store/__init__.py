"""The only package that speaks to Valkey/Redis: keys, scripts, typed calls and the clients that run them. PROTOCOL.md is its law."""
