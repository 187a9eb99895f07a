"""A directory holds data of one organisation, whichever of its keys is used."""

import asyncio
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.config import ApiKey
from asyncexport.core.exits import Exit
from asyncexport.core.organisation import KNOWN_KEYS, DirectoryOrganisation
from asyncexport.core.service.resources import Me
from asyncexport.ledger import Ledger, LedgerReader
from asyncexport.run.organisation import ORGANISATION, OrganisationCheck
from asyncexport.sandbox import Sandbox, SandboxBehaviour, SandboxFault, serving
from tests.exporting import Notebook, archives, run
from tests.ledger_version_1 import write_ledger

FAST = SandboxBehaviour(operation_seconds=0.02, rows_per_hour=4, requests_per_minute=1e6, burst=10_000)

NEW = DirectoryOrganisation("00ff")


async def night(sandbox: Sandbox, directory, hours: int, *, key: str = "na1.one"):
    """Export the first hours of a day; return the summary and the messages of the notes."""
    viewer = Notebook()
    sandbox.key = key
    summary = await run(sandbox, directory, end=f"2026-01-01T{hours:02}:00:00Z", key=key, viewer=viewer)
    return summary, [note["message"] for note in viewer.of("note")]


def remembered(directory) -> DirectoryOrganisation:
    with LedgerReader(directory) as ledger:
        return DirectoryOrganisation.read(ledger.recall(ORGANISATION), new_salt=lambda: b"")


@given(st.binary(min_size=1, max_size=20), st.text(min_size=1, max_size=9), st.lists(st.text(), max_size=50))
def test_a_remembered_organisation_is_read_back_unchanged(salt, organisation, keys):
    """The newest keys are known, and a key that is seen again is remembered once."""
    one = DirectoryOrganisation(salt.hex())
    for key in keys:
        one = one.with_key(key, host=f"{key}.test", reported=organisation)
    assert DirectoryOrganisation.read(one.to_json(), new_salt=lambda: b"other") == one
    assert all(one.knows(key, host=f"{key}.test") for key in list(dict.fromkeys(reversed(keys)))[:KNOWN_KEYS])
    assert len(one.keys) == min(len(set(keys)), KNOWN_KEYS)


@pytest.mark.parametrize("text", [None, "", "{", "[]", "7", '{"salt": "zz", "id": "", "keys": []}', '{"id": "a"}'])
def test_an_unreadable_note_starts_a_new_organisation(text):
    """If the stored note is missing or cannot be read, a new one gets its own salt and knows no key."""
    one = DirectoryOrganisation.read(text, new_salt=lambda: b"\x07")
    assert one == DirectoryOrganisation("07")
    assert not one.knows("", host="h")


def test_the_first_organisation_stays():
    """The first organisation of a directory is never replaced by another."""
    one = NEW.with_key("a", host="h", reported="ORG")
    assert not NEW.is_other("ORG")
    assert not one.is_other("ORG")
    assert one.is_other("org")
    with pytest.raises(ValueError, match="another"):
        one.with_key("b", host="h", reported="OTHER")


def test_a_key_is_recognised_by_a_salted_eight_byte_fingerprint():
    """The fingerprint of a key is the same for the same salt, and differs for another salt or key."""
    key = ApiKey("na1.c2VjcmV0")
    digest = key.fingerprint(b"salt")
    assert len(digest) == 8
    assert digest == ApiKey("na1.c2VjcmV0").fingerprint(b"salt")
    assert digest not in (key.fingerprint(b"other"), ApiKey("na1.c2VjcmV1").fingerprint(b"salt"))


async def test_the_organisation_is_asked_for_once_per_key(tmp_path):
    """Each new key of the organisation costs one request, and a run over a finished range sends none."""
    async with serving(FAST) as sandbox:
        for hours, key, asked in (
            (1, "na1.one", 1),
            (2, "na1.one", 0),
            (2, "na1.two", 0),
            (3, "na1.two", 1),
            (4, "na1.one", 0),
        ):
            sandbox.reset_counts()
            summary, notes = await night(sandbox, tmp_path, hours, key=key)
            assert (summary.exit_code, notes) == (Exit.DONE, [])
            assert (sandbox.counts["me"], summary.requests["other"]) == (asked, asked)
            if (hours, key) == (2, "na1.two"):
                assert sum(sandbox.counts.values()) == 0
    known = remembered(tmp_path)
    assert (known.id, [len(bytes.fromhex(key)) for key in known.keys]) == ("ORG", [8, 8])


def test_a_key_is_known_at_the_host_that_confirmed_it():
    """At another host it is not known. A note without hosts, from an earlier version, counts for any host."""
    one = NEW.with_key("a", host="api.test", reported="ORG")
    assert one.knows("a", host="api.test")
    assert not one.knows("a", host="127.0.0.1:8765")
    moved = one.with_key("a", host="127.0.0.1:8765", reported="ORG")
    assert (moved.keys, moved.hosts) == (("a",), {"a": "127.0.0.1:8765"})
    old = DirectoryOrganisation.read('{"salt": "00ff", "id": "ORG", "keys": ["a"]}', new_salt=bytes)
    assert old.knows("a", host="api.test")
    assert old.knows("a", host="127.0.0.1:8765")


async def test_a_known_key_is_checked_again_at_another_host(tmp_path):
    """A host of the same organisation costs one request; one of another organisation ends the run before any create."""
    async with serving(FAST) as sandbox:
        assert (await night(sandbox, tmp_path, 1))[0].exit_code is Exit.DONE
        first = remembered(tmp_path)
    async with serving(replace(FAST, organisation="OTHER")) as sandbox:
        for _ in range(2):
            sandbox.reset_counts()
            summary, _notes = await night(sandbox, tmp_path, 2)
            assert summary.exit_code is Exit.LEDGER
            assert re.search(r"at 127.0.0.1:\d+ the API key belongs to organisation OTHER.* of ORG", str(summary.error))
            assert summary.error is not None
            assert summary.error.hint.startswith("set [api] base_url to the host of ORG")
            assert (sandbox.counts["create"], sandbox.counts["me"]) == (0, 1)
            assert remembered(tmp_path) == first
        sandbox.reset_counts()
        assert (await night(sandbox, tmp_path, 1))[0].exit_code is Exit.DONE
        assert sum(sandbox.counts.values()) == 0, "a finished range costs no request"
        sandbox.behave(FAST)
        for hours, asked in ((2, 1), (3, 0)):
            sandbox.reset_counts()
            assert (await night(sandbox, tmp_path, hours))[0].exit_code is Exit.DONE
            assert sandbox.counts["me"] == asked


async def test_a_note_without_hosts_is_completed_without_a_request(tmp_path):
    """A key that an earlier version has checked counts as checked for the host of its first use from then on."""
    async with serving(FAST) as sandbox:
        await night(sandbox, tmp_path, 1)
        known = remembered(tmp_path)
        ledger = await Ledger.open(tmp_path)
        ledger.remember(ORGANISATION, replace(known, hosts={}).to_json())
        await ledger.close()
        sandbox.reset_counts()
        assert (await night(sandbox, tmp_path, 2))[0].exit_code is Exit.DONE
        assert (sandbox.counts["me"], remembered(tmp_path)) == (0, known)


async def test_another_organisation_is_refused_before_anything_is_created(tmp_path):
    """A key of another organisation ends the run before any create and is not remembered; the first key still works."""
    async with serving(FAST) as sandbox:
        await night(sandbox, tmp_path, 1)
        before = remembered(tmp_path)
        sandbox.behave(replace(FAST, organisation="OTHER"))
        for _ in range(2):
            sandbox.reset_counts()
            summary, _notes = await night(sandbox, tmp_path, 2, key="na1.other")
            assert summary.exit_code is Exit.LEDGER
            assert "OTHER" in str(summary.error)
            assert "ORG" in str(summary.error)
            assert (sandbox.counts["create"], sandbox.counts["me"]) == (0, 1)
        assert (remembered(tmp_path), len(archives(tmp_path))) == (before, 2)
        summary, _notes = await night(sandbox, tmp_path, 2)
        assert summary.exit_code is Exit.DONE


@pytest.mark.parametrize("what", ["503", "403", "429", "html", "reset", "not-object"])
async def test_an_unanswered_question_is_reported_once_and_asked_again_by_the_next_run(tmp_path, what):
    """If the service does not say whose the key is, the run reports it and succeeds, and the next run asks again."""
    async with serving(replace(FAST, faults=(SandboxFault("me", what),))) as sandbox:
        summary, notes = await night(sandbox, tmp_path, 1)
        assert summary.exit_code is Exit.DONE
        (note,) = notes
        assert "the next run asks again" in note
        assert sandbox.counts["me"] == 1
        sandbox.behave(FAST)
        summary, notes = await night(sandbox, tmp_path, 2)
        assert (summary.exit_code, sandbox.counts["me"]) == (Exit.DONE, 2)
        (note,) = notes
        assert "assumed to belong to organisation ORG" in note
        assert (await night(sandbox, tmp_path, 3))[1] == []


async def test_a_hanging_answer_is_not_waited_for(tmp_path):
    """If the answer does not arrive in time, that is reported and nothing is remembered."""
    ledger, reported = await Ledger.open(tmp_path), list[str]()
    check = await OrganisationCheck.begin(ledger, ApiKey("na1.one"), base_url="auto")

    async def hang() -> Me:
        await asyncio.Event().wait()
        raise AssertionError

    await check.finish(hang, reported.append, timeout_seconds=0.01)
    assert await ledger.recall(ORGANISATION) is None
    await ledger.close()
    (note,) = reported
    assert "the next run asks again" in note


async def test_an_answer_without_an_organisation_is_reported(tmp_path):
    """If the answer names no organisation, that is reported and nothing is remembered."""
    async with serving(replace(FAST, organisation="")) as sandbox:
        summary, (note,) = await night(sandbox, tmp_path, 1)
        assert summary.exit_code is Exit.DONE
        assert "did not say" in note
    assert remembered(tmp_path).id == ""


async def test_a_refused_key_ends_the_run(tmp_path):
    """A refused key ends the run before anything is created."""
    async with serving(replace(FAST, faults=(SandboxFault("me", "401"),))) as sandbox:
        summary, _notes = await night(sandbox, tmp_path, 1)
        assert (summary.exit_code, sandbox.counts["create"]) == (Exit.KEY_REFUSED, 0)


async def test_an_old_ledger_adopts_the_first_organisation_and_reports_it(tmp_path):
    """A ledger that recorded no organisation adopts the first one it hears of, and reports that once."""
    write_ledger(tmp_path)
    async with serving(FAST) as sandbox:
        summary, (note,) = await night(sandbox, tmp_path, 1)
        assert summary.exit_code is Exit.DONE
        assert note.startswith("the directory's data is assumed to belong to organisation ORG")
        assert (await night(sandbox, tmp_path, 2))[1] == []


@pytest.mark.parametrize(("key", "creates"), [("na1.two", 1), ("na1.one", 2)])
async def test_a_new_key_is_not_trusted_for_what_another_key_could_do(tmp_path, key, creates):
    """A new key that gets only 403 ends the run immediately; a key that worked here before is tried again."""
    async with serving(FAST) as sandbox:
        assert (await night(sandbox, tmp_path, 1))[0].exit_code is Exit.DONE
        before = sandbox.counts["create"]
        sandbox.behave(replace(FAST, faults=(SandboxFault("api", "403", body="json"),)))
        summary, _ = await night(sandbox, tmp_path, 2, key=key)
        assert summary.exit_code is Exit.KEY_REFUSED
        assert min(sandbox.counts["create"] - before, 2) == creates
