"""Names and sinks of what TaskMaster tells about itself."""
