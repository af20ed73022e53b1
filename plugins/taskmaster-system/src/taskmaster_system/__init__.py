"""What TaskMaster does for itself by the clock."""

from taskmaster_system.plugin import plugin

__all__ = ["plugin"]
