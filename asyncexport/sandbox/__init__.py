"""A stand-in for Fullstory's Segment Export API, to try things out against and to rehearse what can go wrong.

    async with serving(SandboxBehaviour(operation_seconds=0.1)) as sandbox:
        ...  # sandbox.url is the base URL, sandbox.key the key

It answers as the API reference has it. What that marks as inferred or unknown is a guess here as well: each such
thing is a switch of `SandboxBehaviour`, and `behaviour.describe()` says which is which. Nothing of it was observed on
a real account.
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
