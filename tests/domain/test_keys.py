from __future__ import annotations

import re

import pytest

from shared.domain import keys


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (keys.delivery_id("p1", "twitter", "a"), keys.delivery_id("p1", "twitter", "b")),
        (keys.delivery_id("p", "1twitter", "a"), keys.delivery_id("p1", "twitter", "a")),
        (keys.delivery_id('p","twitter', "x", "a"), keys.delivery_id("p", "twitter", 'x","a')),
        (keys.task_id("d", 1, 11), keys.task_id("d", 11, 1)),
        (keys.task_id("d", 1, 1), keys.task_id("d", 1, 2)),
        (keys.marker_id("schedule", "acme", "k"), keys.marker_id("cancel", "acme", "k")),
        (keys.marker_id("schedule", "acme", "k"), keys.marker_id("schedule", "umbrella", "k")),
        (keys.remote_id("twitter", "1"), keys.remote_id("linkedin", "1")),
        (keys.dead_letter_id("d", 1), keys.dead_letter_id("d", 2)),
    ],
)
def test_what_differs_has_another_key(one: str, other: str) -> None:
    assert one != other


@pytest.mark.parametrize("text", ["a/b", "\ud800", "\0", "é" * 400, ""])
def test_a_key_made_of_anything_is_a_document_id_and_a_task_name(text: str) -> None:
    made = [
        keys.delivery_id(text, text, text),
        keys.task_id(text, 1, 1),
        keys.marker_id(text, text, text),
        keys.remote_id(text, text),
        keys.malformed_letter_id(text.encode("utf-8", "surrogatepass")),
    ]

    assert all(re.fullmatch(r"[a-z][0-9a-f]{32}", key) for key in made)


@pytest.mark.parametrize("text", ["a", "a.b", "...", "__", "_a_", "é" * 750, "a b"])
def test_what_firestore_takes_as_a_document_id(text: str) -> None:
    assert keys.is_document_id(text)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a/b", "__a__", "____", "\ud800", "é" * 751, "__a\nb__"]
)
def test_what_firestore_does_not_take_as_a_document_id(text: str) -> None:
    assert not keys.is_document_id(text)


def test_the_native_key_belongs_to_the_content() -> None:
    key = keys.native_key("d1", "Hello", ["gs://b/1"], {"a": 1, "b": 2})

    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", key)
    assert keys.native_key("d1", "Hello", ["gs://b/1"], {"b": 2, "a": 1}) == key
    others = [
        keys.native_key("d2", "Hello", ["gs://b/1"], {"a": 1, "b": 2}),
        keys.native_key("d1", "Hello!", ["gs://b/1"], {"a": 1, "b": 2}),
        keys.native_key("d1", "Hello", ["gs://b/2"], {"a": 1, "b": 2}),
        keys.native_key("d1", "Hello", [], {"a": 1, "b": 2}),
        keys.native_key("d1", "Hello", ["gs://b/1"], {"a": 1}),
    ]
    assert len({key, *others}) == 6


def test_equal_payloads_have_one_fingerprint_whatever_their_order() -> None:
    one = {"a": [1, {"b": None, "c": "é"}], "d": True}
    same = {"d": True, "a": [1, {"c": "é", "b": None}]}
    other = {"d": True, "a": [{"c": "é", "b": None}, 1]}

    assert keys.fingerprint(one) == keys.fingerprint(same)
    assert keys.fingerprint(one) != keys.fingerprint(other)
