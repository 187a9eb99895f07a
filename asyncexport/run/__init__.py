"""Puts the wings together: a whole run, what a run would find, and the check of what is on disk."""
