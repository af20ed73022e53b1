"""What is measured: one module a measurement, each with a `run(bench, subject)` that returns figures by name."""
