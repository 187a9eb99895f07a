"""Fullstory over HTTP: the API, whose client has the key, and the storage host, whose client is made without it.

api              one method a call
gated_transport  one request through the gate, and the judgement of its reply
api_transport    one request with the key, and its whole reply
storage_host     downloads from signed links; never has the key
session          connections: time-outs, TLS, the proxy
resolver         names of hosts, looked up in threads that nobody waits for
key_log          where TLS writes its keys, if the environment says so
faults           aiohttp's exceptions as errors of ours
gate             what is needed of whoever decides when a request may be sent
outage_log       what is logged while the service is out of reach
clock            what time it is at the service
"""
