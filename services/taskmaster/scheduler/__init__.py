"""The scheduler process: any number may run, one of them leads a partition."""
