"""The fan-out: the request budget, the poller, and one coroutine a bundle.

Nothing here knows a file, a socket or a database: what the engine needs of them it states as `Protocol`s, so that
`simulate` can put memory behind it.

scheduler          the loop: one coroutine a bundle, from state to state
lanes              where the bundles of a run are, and whether there is room for one more
bundle_runner      one bundle from state to state; what each state leads to
moves              a move from state to state: durable first, then told
service_ids        whose operation, and whose export, an id is
creates            requests that start operations
fetching           from a finished operation to a stored archive, however many tries it takes
download           from a link to a checked archive, resumed where an earlier try was cut
row_checks         what is known of the rows in each export's files
retrying           how long to wait between tries, and whose trouble it is
poller             when to look for finished operations, and at what
listing            one request about up to 100 operations
individual_polls   one request about one operation
operation_answers  what the service's answer about an operation means
waiters            which operations are waited for, by whom, until when
budget             the gate that every API request passes
dispatcher         waits for a token, then serves the best waiter
waiting_line       who waits for leave to send
permit             leave to send one request, and its row in the journal
calls              what the engine asks of the service
"""
