"""Fullstory over HTTP: a client for the API, which has the key, and one for the storage host, which never gets it.

api              one method per API call
gated_transport  sends one request through the gate and judges its reply
api_transport    sends one request with the key and reads its complete reply
storage_host     downloads archives from signed URLs, without the key
ping             tells a monitoring service how a run goes
session          aiohttp sessions: timeouts, TLS, the proxy
resolver         looks up host names in threads that do not delay the end of the program
key_log          checks SSLKEYLOGFILE, the file that TLS writes its session keys to
faults           translates aiohttp's exceptions into the package's own
gate             the protocol for what decides when a request may be sent
outage_log       what is logged while the service is unreachable
clock            the time at the service
"""
