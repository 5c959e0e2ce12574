"""Hex dumps show the beginning and the marked bytes, and count what they leave out."""

from hypothesis import given
from hypothesis import strategies as st

from reports.hexdump import WIDTH, Exhibit, hexdump


def test_marked_bytes_far_into_a_file_are_shown():
    lines = hexdump(Exhibit(bytes(100_000), ((50_000, 50_003),)))

    assert [line.offset for line in lines] == [0, 16, 32, 48, 49_984, 50_000, 50_016]
    assert lines[4].skipped == 49_984 - 64
    assert sum(cell.marked for line in lines for cell in line.cells) == 3


@given(st.binary(max_size=900), st.lists(st.tuples(st.integers(0, 1_000), st.integers(0, 10**9)), max_size=3))
def test_any_bytes_and_any_marks_give_a_bounded_dump_in_order(data, marks):
    lines = hexdump(Exhibit(data, tuple((begin, begin + size) for begin, size in marks)))

    offsets = [line.offset for line in lines]
    assert len(lines) <= 24
    assert offsets == sorted(set(offsets))
    assert all(len(line.cells) == min(WIDTH, len(data) - line.offset) for line in lines)


def test_characters_are_printable_ascii():
    cells = hexdump(Exhibit(bytes(range(256)), ()), max_lines=16)
    shown = "".join(cell.character for line in cells for cell in line.cells)

    assert shown.isascii()
    assert shown.isprintable()
