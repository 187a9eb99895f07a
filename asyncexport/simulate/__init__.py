"""The real scheduler, poller and budget on a clock that jumps, against a service in memory: months in seconds.

run       one simulated run
many      many of them, on every core
variants  what a change of the configuration buys
service   the service, the storage host and the ledger in memory
clock     an event loop whose clock jumps to what is due next
"""
