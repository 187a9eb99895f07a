"""Copies archives to an object store: S3 and what else obstore speaks.

archive_file  reads an archive for an upload, and checks its hash meanwhile
faults        translates errors of obstore; nothing secret passes
listing       lists objects
role          asks whether this machine may have a role, if the environment has no key
seen_file     remembers the objects that were found to be right
store         the bucket: lists, reads and writes objects
"""
