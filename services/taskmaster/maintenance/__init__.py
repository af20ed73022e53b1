"""Duties that nobody asks for. Any worker process may do them; the store lets one through."""
