"""The stand-in for the service: its data, its HTTP, its faults."""
