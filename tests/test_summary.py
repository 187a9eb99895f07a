"""The current problems of a run, as kept for its viewers."""

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.summary import MOST_PROBLEMS, OpenProblems


def bundle(number: int) -> Bundle:
    return Bundle("e", Range(number * 1800, (number + 1) * 1800))


def texts(problems: OpenProblems, *, service_is_well: bool = True) -> list[str]:
    return [problem.text for problem in problems.open(service_is_well=service_is_well)]


def test_the_problem_of_a_bundle_ends_when_it_is_stored():
    """A bundle has only its newest problem, which is removed once the bundle is stored."""
    problems = OpenProblems()
    problems.note(bundle(0), "the file is cut", at=1.0)
    problems.note(bundle(1), "the operation failed", at=2.0)
    problems.note(bundle(0), "the file is damaged", at=3.0)
    assert texts(problems) == [
        "e 1970-01-01T00:30:00Z: the operation failed",
        "e 1970-01-01T00:00:00Z: the file is damaged",
    ]
    problems.over(bundle(1))
    assert texts(problems) == ["e 1970-01-01T00:00:00Z: the file is damaged"]


def test_an_outage_is_one_problem_and_ends_when_the_service_recovers():
    """A hundred failed creates in an outage are one problem of the service, which ends when it answers again."""
    problems = OpenProblems()
    for moment in range(100):
        problems.note_for_all("connection refused", at=float(moment))
    problems.note("people", "no such segment", at=5.0)
    assert texts(problems, service_is_well=False) == ["people: no such segment", "the service: connection refused"]
    assert texts(problems) == ["people: no such segment"]
    assert texts(problems, service_is_well=False) == ["people: no such segment"]


def test_only_the_last_problems_are_kept():
    """Of any number of problems only the newest few are kept."""
    problems = OpenProblems()
    for number in range(1000):
        problems.note(bundle(number), "no", at=float(number))
    assert [problem.at for problem in problems.open(service_is_well=True)] == [
        float(number) for number in range(1000 - MOST_PROBLEMS, 1000)
    ]
