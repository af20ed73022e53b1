"""Pure data and rules. Nothing here does I/O."""
