"""What is asked of Fullstory's API and its storage host, and what their answers mean. No IO.

requests            the requests: paths, queries, bodies
replies, statuses   the replies, and the error that a status means
resources           the contents of a successful reply
transfer, urls      the storage host's answers, and which URLs are safe to follow
proxies             which proxy a request uses, and which hosts need none
retrying            what to do after a failed call: the table
refusals            which calls are refused, since when, and when to probe again
operation_failures  which side caused failed operations
fetch_attempts      the attempts to fetch one file, and which of them count
"""
