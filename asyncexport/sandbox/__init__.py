"""A stand-in for Fullstory's Segment Export API, to try things out against and to rehearse what can go wrong.

    async with serving(Behaviour(operation_seconds=0.1)) as sandbox:
        ...  # sandbox.url is the base URL, sandbox.key the key

It answers as the API reference has it. What that marks as inferred or unknown is a guess here as well: each such
thing is a switch of `Behaviour`, and `behaviour.describe()` says which is which. Nothing of it was observed on a real
account.
"""

from asyncexport.sandbox.behaviour import Basis, Behaviour
from asyncexport.sandbox.data import SyntheticRows
from asyncexport.sandbox.faults import Fault
from asyncexport.sandbox.rowfile import FileRows
from asyncexport.sandbox.sandbox import KEY, Call, Made, Sandbox
from asyncexport.sandbox.serving import serving

__all__ = [
    "KEY",
    "Basis",
    "Behaviour",
    "Call",
    "Fault",
    "FileRows",
    "Made",
    "Sandbox",
    "SyntheticRows",
    "serving",
]
