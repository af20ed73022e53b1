"""Use-cases: what may be asked of TaskMaster, as pure functions that check a request, build the store's calls and read its answers."""
