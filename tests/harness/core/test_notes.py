"""Notes keep each line once, in the order of arrival."""

from harness.core.notes import Notes


def test_lines_are_kept_once_and_in_order() -> None:
    notes = Notes()
    for line in ("b was set aside", "a  was\nset aside", "b was set aside"):
        notes.add(line)
    assert list(notes) == ["b was set aside", "a was set aside"]
    assert len(notes) == 2
