"""The real scheduler, poller and budget on a clock that jumps, against a service in memory: months in seconds."""
