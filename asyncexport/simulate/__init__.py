"""The real scheduler, watcher and budget on a clock that jumps, against a service in memory: months in seconds."""
