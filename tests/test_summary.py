"""What is in the way of a run, as it is kept for whoever watches."""

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.summary import MOST_PROBLEMS, OpenProblems


def bundle(number: int) -> Bundle:
    return Bundle("e", Range(number * 1800, (number + 1) * 1800))


def texts(problems: OpenProblems, *, service_is_well: bool = True) -> list[str]:
    return [problem.text for problem in problems.open(service_is_well=service_is_well)]


def test_a_bundles_problem_is_over_when_it_is_stored():
    """Nothing stays up that is no problem any more, and a bundle has one: its newest."""
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


def test_an_outage_is_told_once_and_goes_when_the_service_is_back():
    """A hundred bundles that could not be created are one problem, and that is nobody's own."""
    problems = OpenProblems()
    for moment in range(100):
        problems.note_for_all("connection refused", at=float(moment))
    problems.note("people", "no such segment", at=5.0)
    assert texts(problems, service_is_well=False) == ["people: no such segment", "the service: connection refused"]
    assert texts(problems) == ["people: no such segment"]
    assert texts(problems, service_is_well=False) == ["people: no such segment"]


def test_only_the_last_problems_are_kept():
    """However many there are, it is a handful that is held and shown."""
    problems = OpenProblems()
    for number in range(1000):
        problems.note(bundle(number), "no", at=float(number))
    assert [problem.at for problem in problems.open(service_is_well=True)] == [
        float(number) for number in range(1000 - MOST_PROBLEMS, 1000)
    ]
