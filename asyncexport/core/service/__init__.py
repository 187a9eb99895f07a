"""What Fullstory's API and its storage host are asked, and what their answers mean; no IO."""
