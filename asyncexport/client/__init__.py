"""Fullstory over HTTP: the API, which gets the key, and the storage host, which never does."""
