"""The production checklist behind `taskmaster doctor` and `GET /doctor`: facts in, findings out."""
