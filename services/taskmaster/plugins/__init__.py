"""The host's side of plugins: finding them, keeping them apart, starting and stopping them, and telling others what they can do."""
