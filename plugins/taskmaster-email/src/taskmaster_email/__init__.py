"""Sends e-mail as TaskMaster jobs."""

from taskmaster_email.plugin import plugin

__all__ = ["plugin"]
