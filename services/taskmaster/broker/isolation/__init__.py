"""Handlers in child processes that can be killed.

    worker process ── nursery (single-threaded, plugins imported) ── runner, runner, runner …
          └──────────────── a socket to each runner ────────────────────┘

The nursery is forked before the worker process starts a thread or opens a connection, and forks runners on demand. A runner runs one
attempt at a time; the slot thread that gave it the attempt waits on its socket, with the deadline in view. Only plain data crosses.
"""
