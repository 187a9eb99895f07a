"""Is this stream of bytes one whole export? Containers, gzip and structure; no IO."""
