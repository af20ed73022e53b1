"""Dramatiq's interfaces over the store: broker, consumer, message and threads."""
