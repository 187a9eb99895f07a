"""The fan-out: the request budget, the poller, and one coroutine a bundle.

Nothing here knows a file, a socket or a database: what the engine needs of them it states as `Protocol`s, so that
`simulate` can put memory behind it.

scheduler          the loop: one coroutine a bundle, from state to state
in_flight          where the bundles of a run are, and whether there is room for one more
bundle_runner      one bundle from state to state; what each state leads to
moves              a move from state to state: durable first, then told
service_ids        whose operation, and whose export, an id is
export_state       what the bundles of one export share, and how it is stopped
creates            requests that start operations
create_turns       whose create may go
create_failures    what follows from a failed create
operation_ends     what follows when the wait for an operation is over
fetching           from a finished operation to a stored archive, however many tries it takes
file_tries         one try to fetch a file
fetch_failures     what follows from a failed try
download           from a link to a checked archive, resumed where an earlier try was cut
row_checks         what is known of the rows in each export's files
download_slots     how many files are downloaded at once
call_turns         what all bundles know of what is refused, and how long to wait between tries
change_signal      tells those who wait that something has changed
key_check          asks whose key it is, where an answer raises doubts
key_hold           holds requests back meanwhile
poller             when to look for finished operations, and at what
listing            one request about up to 100 operations
individual_polls   one request about one operation
poll_failures      what follows from a failed one
operation_answers  what the service's answer about an operation means
watched_operations which operations are waited for, by whom, until when
budget             the gate that every API request passes
contention_log     what is logged when somebody else uses the limit, too
dispatcher         waits for a token, then serves the best waiter
request_queue      who waits for leave to send
permit             leave to send one request, and its row in the journal
calls              what the engine asks of the service
"""
