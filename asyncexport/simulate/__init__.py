"""Simulates runs: the real scheduler, poller and budget on a virtual clock, against a service in memory.

Months of exporting take seconds.

run       simulates one run
many      simulates many runs on all cores
variants  compares changed settings with the current configuration
work      the bundles of a simulated run
service   the service, the storage host and the ledger in memory
clock     an event loop whose clock jumps to the next timer
"""
