"""Records on disk are the records that were put there, in any order, and copies have ids of their own."""

from __future__ import annotations

import json

import numpy as np
import pytest

from coh_lightning.feedback.record_store import RecordStore, SeenIds, StoredRecords
from coh_lightning.feedback.records import Feedback, content_hash, content_id, unique
from helpers.feedback import EVERY_KIND, IDENTICAL, SILENT, TIE

RECORDS = [
    Feedback.from_json(row | {"source": "s", "reference": "r", "more": {"n": [1, None]}}, f"f.jsonl:{number}")
    for number, row in enumerate((*EVERY_KIND, TIE, IDENTICAL, SILENT), start=1)
]


def stored() -> RecordStore:
    store = RecordStore()
    for record in RECORDS:
        store.append(record)
    return store


def test_every_kind_of_record_comes_back_equal() -> None:
    store = stored()
    assert [store[number] for number in range(len(store))] == RECORDS
    assert [store[number].where for number in range(len(store))] == [record.where for record in RECORDS]
    with pytest.raises(IndexError):
        store[len(RECORDS)]


def test_some_of_them_in_an_order_are_a_sequence() -> None:
    records = StoredRecords(stored(), np.array([3, 0, 5]))
    assert list(records) == [RECORDS[3], RECORDS[0], RECORDS[5]] and len(records) == 3
    assert list(records[1:]) == [RECORDS[0], RECORDS[5]] and records[-1] == RECORDS[5]
    assert list(records.taken(np.array([2, 2]))) == [RECORDS[5]] * 2


def test_a_copy_has_its_number_and_an_id_of_its_own() -> None:
    records = StoredRecords(stored(), np.array([1, 1, 1]), np.array([1, 2, 3], np.int32), {(1, 3): "prefix~3~"})
    assert [(one.id, one.copy) for one in records] == [("prefix", 1), ("prefix~2", 2), ("prefix~3~", 3)]
    assert [(one.id, one.copy) for one in records[1:]] == [("prefix~2", 2), ("prefix~3~", 3)]


def test_ids_are_made_unique_as_with_a_dictionary() -> None:
    rows = [{"prompt": "p", "completions": [{"text": text}]} for text in ("a", "b", "a", "a", "b")]
    store = RecordStore()
    on_disk, in_memory = SeenIds(store, "x/"), dict[str, str]()
    for number, row in enumerate(rows):
        record = Feedback.from_json(row, f"f:{number}")
        one, other = unique(record, on_disk, record.where), unique(record, in_memory, record.where)  # type: ignore[arg-type]
        assert one == other
        store.append(one.under(id=f"x/{one.id}", source="x"))
    assert len({store[number].id for number in range(5)}) == 5
    assert {id: on_disk[id] for id in in_memory} == in_memory and "else" not in on_disk
    with pytest.raises(KeyError):
        on_disk["else"]


def test_equal_contents_have_an_equal_hash_and_others_another() -> None:
    again = [Feedback.from_json(json.loads(json.dumps(one.to_json())) | {"id": "other"}, "g:1") for one in RECORDS]
    assert [content_hash(one) for one in again] == [content_hash(one) for one in RECORDS]
    assert [content_id(one) for one in again] == [content_id(one) for one in RECORDS]
    assert len({content_hash(one) for one in RECORDS}) == len(RECORDS)
