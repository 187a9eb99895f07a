"""Decides whether a stream of bytes is one complete export: layers of gzip, file format, structure and rows. No IO.

inspection     checks a whole body, piece by piece, and describes the archive made of it
gunzip         decompresses gzip and checks it to its last byte
structure      checks the content: NDJSON, CSV, or a JSON array (json_array)
proof          what is known about a body besides its bytes, and what that proves
wire_hash      compares a body with the storage host's hashes
rules          which rows are sampled, and the interface that checks them
expected_rows  checks whether the sampled rows are the ones that were requested
row_digest     tells whether two archives hold the same rows, in any order
"""
