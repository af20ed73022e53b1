"""Delivery of webhooks."""

from taskmaster_webhooks.plugin import plugin

__all__ = ["plugin"]
