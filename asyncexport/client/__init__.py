"""Fullstory over HTTP: `api`, which has the key, and `storage_host`, which is made without it."""
