"""Broken variants of the scripts and of the worker, each of which some test must notice."""
