"""Checks for `doctor` whether the addresses are free at which runs serve metrics and the status page.

Each address is taken for a moment, both at the same time, so that two settings with the same port are noticed.
"""

import asyncio
from contextlib import AsyncExitStack

from asyncexport.config import Settings
from asyncexport.core.diagnosis import Check, passed, warned
from asyncexport.ledger import lock_holder
from asyncexport.run.dashboard import listen_fault

TAKEN = "choose another port in [{table}] listen, or end what uses it (`ss -ltnp` lists it)"


async def listen_checks(settings: Settings) -> list[Check]:
    """Return a check of each address; none if nothing is served."""
    tables = [one for one in (settings.metrics, settings.dashboard) if one.address is not None]
    if not tables:
        return []
    if await asyncio.to_thread(lock_holder, settings.output.directory) is not None:
        names = ", ".join(f"[{one.table}] listen" for one in tables)
        return [passed("listen", f"{names}: not checked, because the run that uses the directory may serve there")]
    checks = []
    async with AsyncExitStack() as stack:
        for one in tables:
            address, loop = one.address, asyncio.get_running_loop()
            if address is None:
                continue
            try:
                server = await loop.create_server(asyncio.Protocol, address.host, address.port)
            except OSError as error:
                message = f"[{one.table}] listen {address} cannot be used, so the {one.served} would not be served"
                advice = TAKEN.format(table=one.table)
                checks.append(warned("listen", f"{message}: {listen_fault(error)}", advice))
            else:
                stack.callback(server.close)
                checks.append(passed("listen", f"[{one.table}] listen {address} is free"))
    return checks
