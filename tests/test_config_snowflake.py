"""The login at Snowflake: what is missing or cannot be used is named before anything is loaded."""

from pathlib import Path

import pytest

from asyncexport.config import Settings, load_snowflake
from asyncexport.core.warehouse.snowflake_login import address
from asyncexport.errors import ConfigError
from tests.test_config import read

PEM = "-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----\n"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Return the variables of a login."""
    key_file = tmp_path / "key.p8"
    key_file.write_text(PEM)
    given = {"ACCOUNT": "CANARY-account", "USER": "CANARY_user", "KEY_FILE": str(key_file), "DATABASE": "analytics"}
    return {f"ASYNCEXPORT_LOAD__SNOWFLAKE__{name}": value for name, value in given.items()}


def test_the_login_comes_from_the_environment(tmp_path, environ):
    """The database is read as Snowflake reads a name; nothing of the login is in its text."""
    login = load_snowflake(read(tmp_path, environ=environ).load.snowflake)
    assert login.address == address("CANARY-account")
    assert (login.user, login.database, login.warehouse) == ("CANARY_user", "ANALYTICS", "")
    assert "CANARY" not in repr(login)


def test_all_that_is_missing_is_named_at_once():
    """With the variables to set."""
    with pytest.raises(ConfigError) as caught:
        load_snowflake(Settings().load.snowflake)
    for name in ("account", "user", "key_file", "database"):
        assert f"load.snowflake.{name}: is not set" in str(caught.value)
    assert "ASYNCEXPORT_LOAD__SNOWFLAKE__ACCOUNT" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "value", "reported"),
    [
        ("ACCOUNT", "http://CANARY.example", "load.snowflake.account: must be an https URL"),
        ("KEY_FILE", "/nowhere/CANARY", "load.snowflake.key_file: cannot be read: no such file or directory"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(tmp_path, environ, name, value, reported):
    """Its value is not repeated."""
    with pytest.raises(ConfigError) as caught:
        load_snowflake(read(tmp_path, environ=environ | {f"ASYNCEXPORT_LOAD__SNOWFLAKE__{name}": value}).load.snowflake)
    assert reported in str(caught.value)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (PEM.replace("PRIVATE", "ENCRYPTED PRIVATE"), "is encrypted with a passphrase"),
        ("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nCANARY", "is encrypted with a passphrase"),
        (PEM.replace("PRIVATE", "PUBLIC"), "has no private key"),
        ("", "has no private key"),
    ],
)
def test_the_key_file_has_a_private_key_without_a_passphrase(tmp_path, environ, content, reported):
    """Its content is not repeated."""
    (tmp_path / "key.p8").write_text(content)
    with pytest.raises(ConfigError, match=rf"load\.snowflake\.key_file: {reported}") as caught:
        load_snowflake(read(tmp_path, environ=environ).load.snowflake)
    assert "CANARY" not in str(caught.value)
