"""The worker service: a supervisor that imports the plugins once and forks processes that run their jobs."""
