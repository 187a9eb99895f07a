"""A stand-in for Fullstory's Segment Export API, to try things out against and to rehearse what can go wrong.

    async with serving(SandboxBehaviour(operation_seconds=0.1)) as sandbox:
        ...  # sandbox.url is the base URL, sandbox.key the key

It answers as the API reference has it. What that marks as inferred or unknown is a guess here as well: each such
thing is a switch of `SandboxBehaviour`, and `behaviour.describe()` says which is which. Nothing of it was observed on
a real account.

serving, server, transmission  listens; counts and answers requests; how an answer goes over the wire
routes, reading, answers       which endpoint is meant; the body of a create; answers as values
service, limit                 what is answered, and how many requests are let through
operations, operation_store    one operation, and all of them
listing, segments              the list of operations, and the segments
storage, downloads             signed links, and the files that they lead to
contents, stored_files         what is in a file, and where it is kept
data, shop, visitors, visits   made-up events, from the time and a seed
people, rows, rowfile, filler  individuals; what a row is; rows of a file; big files
formats, chance                rows as NDJSON, JSON and CSV; chance that is always the same
faults, fault_effects          what can go wrong, and what it does to an answer
behaviour                      all switches
matching                       settings of the exporter that fit a sandbox
sandbox, admin                 the sandbox as tests hold it, and as it tells of itself over HTTP
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
