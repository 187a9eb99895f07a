"""The rules: pure decisions, without await, files, sockets, or a clock or random numbers of their own.

What there is to do
    bundles            ranges of time, and how they are cut into bundles
    exports            the exports the user wants, and their definitions
    states             the states of a bundle, and the legal moves between them
    coverage           what a run has to do, from the range and the ledger
    covered_range      the range of one export in a run
    lanes              the order of bundles in a run that follows the present
    old_order          the values of `[nightly] order`
    work_queue         the bundles of a run, in the order in which they are started
    parking            when a parked bundle is retried, and when a later run splits it
    splitting          what follows a failed attempt, and into which pieces a bundle is split
    joining            when a run that waits for another one has nothing left to do
    join_progress      how much of its work that other run has done
    refreshing         when a stored bundle is exported once more
    auditing           a random sample of stored bundles, compared with new exports
    confidence         how many of all have a property that some of a sample have
    replacement_guard  whether a new export may replace an archive

When requests are sent
    bucket             the token bucket's level, now and from the recorded requests
    admission          priorities, 429 pauses, and which calls count
    connectivity       outages: how long to wait, and when to give up
    polling            when a poll is worth its token
    durations          how long operations take, learned from those that finished
    operation_limit    how many operations to have in flight
    service_time       the time at the service
    forecast           what a run costs and when it ends

What the service and the storage host say
    service            requests, replies, statuses, links, and what to do after a failed call
    archive            whether a stream of bytes is one complete export
    row_names          the field names of rows
    row_rejections     what follows when files are rejected because of their rows
    second_looks       how many files needed a second check
    organisation       which organisation's data a directory holds

What is reported, and where
    events             what happens during a run
    health             what an output directory holds, what is missing, and whether all is well
    sentinel           notices stored time with far fewer rows than usual
    mirror             the objects of a mirror, and what is to be done with each
    warehouse          the tables and days of a warehouse, and what a field of a row becomes
    refreshed          what changed in bundles that were exported once more
    summary            the tally of a run, and its summary
    exits              the exit codes
    text               durations and foreign text in messages
    masking            secrets, replaced in outgoing text
    access             who may read what a run creates
    listen_address     the address that a server of ours listens on
    diagnosis          the checks of `doctor`: their results, and what follows from them
    directory_diff     an export's folder compared with the ledger
    file_faults        what file system errors mean
"""
