"""A local stand-in for Fullstory's Segment Export API, to try things out and to test every fault.

    async with serving(SandboxBehaviour(operation_seconds=0.1)) as sandbox:
        ...  # sandbox.url is the base URL, sandbox.key the key

It follows the vendor's API documentation. What the documentation leaves open is a switch of `SandboxBehaviour`, and
`behaviour.describe()` says how certain each default is. Nothing was observed on a real account.

serving, server, transmission  start and stop; count and answer requests; write an answer to the connection
routes, reading, answers       the endpoint of a request; the body of a create; answers as values
service, limit                 the API's logic; the rate limit
operations, operation_store    one operation; all operations
listing, segments              the list of operations; the segments
storage, downloads             signed URLs; the files behind them
contents, stored_files         the content of a file; where it is kept
data, shop, visitors, visits   synthetic events, made from the time and a seed
people, rows, rowfile, filler  individuals; what a row is; rows read from a file; big files
formats, chance                rows as NDJSON, JSON and CSV; reproducible random numbers
faults, fault_effects          faults on demand; their effects on an answer
behaviour                      all switches
matching                       settings of the exporter that fit a sandbox
sandbox, admin                 the sandbox as an object for tests; its state over HTTP
"""

from asyncexport.sandbox.behaviour import SandboxBehaviour, SandboxCertainty
from asyncexport.sandbox.data import SandboxSyntheticRows
from asyncexport.sandbox.faults import SandboxFault
from asyncexport.sandbox.rowfile import SandboxFileRows
from asyncexport.sandbox.sandbox import KEY, Sandbox, SandboxCall, SandboxOperationView
from asyncexport.sandbox.serving import serving

__all__ = [
    "KEY",
    "Sandbox",
    "SandboxBehaviour",
    "SandboxCall",
    "SandboxCertainty",
    "SandboxFault",
    "SandboxFileRows",
    "SandboxOperationView",
    "SandboxSyntheticRows",
    "serving",
]
