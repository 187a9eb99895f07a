"""Is this stream of bytes one whole export? Containers, gzip and structure; no IO.

inspection  the check of a whole body, piece by piece, and the archive that is made of it
gunzip      gzip, decompressed and checked to its last byte
structure   what is inside: NDJSON, CSV, or a JSON array (json_array)
proof       what is known of a body besides its bytes, and what that proves
wire_hash   the storage host's hashes, compared with the body
rules       which rows are looked at, and by whom
expected_rows  whether these are the rows that were asked for
row_digest  whether two archives hold the same rows, in whatever order
"""
