"""What every experiment runs on: stages, the store of their artifacts, and the processes that share the work."""
