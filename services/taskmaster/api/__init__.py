"""The REST contract over `engine`: Litestar routes, and nothing that decides."""
