"""Job types to try TaskMaster out with."""

from taskmaster_demo.plugin import plugin

__all__ = ["plugin"]
