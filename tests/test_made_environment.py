"""Environments that tests make: why one cannot be made is said in a line."""

import pytest

from tests.made_environment import NotMadeError, environment


def test_what_cannot_be_installed_is_named(tmp_path):
    """The next run tries again."""
    for _ in range(2):
        with pytest.raises(NotMadeError, match=r"^-m pip install failed: .*nowhere"):
            environment(["/nowhere/at-all"], cache=tmp_path)


def test_a_python_that_is_missing_is_named(tmp_path):
    """No environment can be made without it."""
    with pytest.raises(NotMadeError, match="/nowhere/python"):
        environment([], cache=tmp_path, python="/nowhere/python")
