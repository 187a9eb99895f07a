"""The fan-out: the request budget, the poller, and one coroutine a bundle.

Nothing here knows a file, a socket or a database: what the engine needs of them it states as `Protocol`s, so that
`simulate` can put memory behind it.
"""
