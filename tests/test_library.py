"""What a program may import from the package."""

from pathlib import Path

import pytest

import asyncexport
from asyncexport.sandbox import SandboxBehaviour, serving
from tests.exporting import archives


def test_every_public_name_can_be_imported():
    """Each is there, and is what its module has under that name."""
    found = {name: getattr(asyncexport, name) for name in asyncexport.__all__}
    assert all(getattr(value, "__name__", name) == name for name, value in found.items())
    assert asyncexport.load is asyncexport.load_settings
    with pytest.raises(AttributeError, match="no attribute 'Order'"):
        _ = asyncexport.Order


async def test_a_program_can_run_a_backfill(tmp_path: Path) -> None:
    """With public names alone: settings, key, a survey, a run, and what happens during it."""
    heard: list[asyncexport.Event] = []
    async with serving(SandboxBehaviour(operation_seconds=0.02, rows_per_hour=4)) as sandbox:
        flags = {"api.base_url": sandbox.url, "polling.min_interval": "5ms", "output.directory": tmp_path}
        settings = asyncexport.load_settings(file=None, environ={}, flags=flags, working_directory=tmp_path)
        key = asyncexport.load_key({"FULLSTORY_API_KEY": sandbox.key}, file=settings.api.api_key_file)
        spec = asyncexport.Backfill(settings.exports, start=1_767_225_600, end=1_767_229_200)
        assert sum(plan.count for plan in asyncexport.survey(settings, spec, now=sandbox.now).plans) == 2
        summary = await asyncexport.export(settings, spec, key=key, listeners=(heard.append,))
    assert (summary.exit_code, len(archives(tmp_path))) == (asyncexport.Exit.DONE, 2)
    assert sum(type(event).__name__ == "BundleStored" for event in heard) == 2
