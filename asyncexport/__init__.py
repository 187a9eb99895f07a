"""asyncexport."""
