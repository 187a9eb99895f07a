"""Runs all bundles concurrently: the request budget, the poller, and one coroutine per bundle.

Nothing here uses files, sockets or databases directly. The engine declares what it needs of them as `Protocol`s, so
that `simulate` can run it on memory.

The run:
scheduler          starts one coroutine per bundle and takes each bundle from state to state
in_flight          counts the bundles in each phase and decides whether another one may start
upcoming           the bundles that were not started yet, and those that become due while a run goes on
bundle_runner      processes one bundle: which step each state leads to
moves              moves a bundle to its next state: durable first, then reported
service_ids        checks which bundle an operation id or export id belongs to
export_state       the state that the bundles of one export share, and how an export is stopped

Creates:
creates            sends the requests that start operations
create_turns       decides which bundle may send its create next
create_failures    decides what follows a failed create

Downloads:
fetching           takes a bundle from a finished operation to a stored archive, with retries
file_fetcher       makes one attempt to fetch a file
fetch_failures     decides what follows a failed attempt
download           downloads, resumes and checks one archive
row_checks         checks the rows of each export's files
download_slots     limits how many files are downloaded at the same time

Refusals and the key:
call_turns         shares what is known about refused calls, and decides how long to wait between attempts
change_signal      wakes waiters when something has changed
key_check          asks the service whether the key is good when an answer casts doubt on it
key_hold           pauses requests until that is known

Polling:
poller             decides when to poll for finished operations, and how
listing            polls up to 100 operations with one request
individual_polls   polls one operation with one request
poll_failures      decides what follows a failed poll
operation_answers  interprets the service's answer about an operation
watched_operations the operations that bundles wait for, with their waiters and deadlines
operation_ends     decides what follows when an operation ends or reaches its deadline

The budget:
budget             the gate that every API request passes
dispatcher         waits for a token, then grants it to the best waiting request
request_queue      the requests that wait for a permit
permit             permission to send one request, and its row in the journal
contention_log     warns when another program uses the same rate limit
calls              the service calls that the engine makes
"""
