"""Tables in mapped files: what is put in comes out, whatever the order and the size."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coh_lightning import tables
from coh_lightning.tables import Blobs, Column, HashTable

LAST = (1 << 64) - 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3) | st.integers(LAST - 2, LAST) | st.integers(0, LAST), max_size=3000, unique=True))
def test_a_key_gives_its_numbers_in_the_order_in_which_they_came(keys: list[int]) -> None:
    table, numbers = HashTable(), dict.fromkeys(keys, 0)
    for number, key in enumerate(keys):
        table.add(key, number)
        numbers[key] = number
    table.add(keys[0] if keys else 7, 5000)
    assert all(next(table.find(key)) == number for key, number in numbers.items())
    assert list(table.find(keys[0] if keys else 7)) == ([0, 5000] if keys else [5000])
    again = HashTable(slots=table.slots.copy())
    assert all(next(again.find(key)) == number for key, number in numbers.items())
    assert list(table.find(1 << 40)) == [number for key, number in numbers.items() if key == 1 << 40]


def test_a_table_grows_with_many_keys_at_its_end() -> None:
    table = HashTable()
    keys = [LAST - i for i in range(900)] + [i << 50 for i in range(3000)]
    for number, key in enumerate(keys):
        table.add(key, number)
    assert [list(table.find(key)) for key in keys] == [[number] for number in range(len(keys))]


@pytest.mark.parametrize("buffered", [16, 1 << 18])
def test_columns_and_byte_strings_can_be_read_while_they_grow(buffered: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_BUFFERED", buffered)
    column, blobs = Column("i"), Blobs()
    for number in range(50):
        column.append(number)
        assert blobs.append(b"x" * number) == number
        assert column.numbers.tolist() == list(range(number + 1)) and len(column) == number + 1
        assert [len(blobs[at]) for at in range(number + 1)] == list(range(number + 1)) and len(blobs) == number + 1
    column.extend(np.array([7, 8]))
    column.extend([9])
    assert column.numbers[-4:].tolist() == [49, 7, 8, 9] and column.numbers.dtype == np.int32
    with pytest.raises(IndexError):
        blobs[50]
    one, other = pickle.loads(pickle.dumps((column, blobs)))
    assert np.array_equal(one.numbers, column.numbers) and other[30] == blobs[30] and len(other) == 50


def test_a_forked_process_reads_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    column, blobs = Column("i"), Blobs()
    for number in range(70_000):
        column.append(number)
        blobs.append(b"%d" % number)
    children = []
    for _ in range(3):
        if not (child := os.fork()):
            right = column.numbers.tolist() == list(range(70_000)) and blobs[69_999] == b"69999" and blobs[5] == b"5"
            os._exit(0 if right else 1)
        children.append(child)
    column.append(-1)
    assert column.numbers[-2:].tolist() == [69_999, -1] and blobs[5] == b"5"
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert column.numbers[-2:].tolist() == [69_999, -1] and len(column.numbers) == 70_001


MANY = 40_000  # numbers of 8 bytes: more than waits in memory


def test_files_have_no_names_and_need_no_folder(tmp_path: Path) -> None:
    column = Column("d", tmp_path / "made")
    column.extend([0.5] * MANY)
    assert column.numbers.tolist() == [0.5] * MANY and list((tmp_path / "made").iterdir()) == []
    (tmp_path / "file").write_text("")
    other = Column("d", tmp_path / "file" / "no folder")
    other.extend([1.5] * MANY)
    assert other.numbers.tolist() == [1.5] * MANY


def test_small_tables_open_no_file(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    column, blobs, table = Column("q", tmp_path / "a"), Blobs(tmp_path / "b"), HashTable(tmp_path / "c")
    for number in range(500):
        column.append(number)
        blobs.append(b"%d" % number)
        table.add(number << 50, number)
    column.extend(np.arange(500, 600))
    assert column.numbers.tolist() == list(range(600)) and blobs[7] == b"7" and list(table.find(7 << 50)) == [7]
    assert len(list(Path("/proc/self/fd").iterdir())) == before and not list(tmp_path.iterdir())
