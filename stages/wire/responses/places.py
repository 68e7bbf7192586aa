"""Which item of the output an event of a Responses upstream is about.

By its ``output_index``, if it has one, whatever ids stand beside it: GitHub Copilot sends another id in every event
(mapping facts, rule 1). No recorded upstream leaves the index out. One that does is understood by the ids with which it
announced its items; one that sends no ids either, or always others, by the order: an event is about the item of its
kind that was opened last.
"""

from __future__ import annotations

from stages.wire.foreign_json import text
from stages.wire.responses.records import Item, ResponsesEvent


class OutputPlaces:
    """The items of one answer by their places in the output: 0, 1, 2 ..."""

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}
        self._open: dict[int, str] = {}  # the types of the items that have not ended, in the order of their beginning
        self._next = 0

    def added(self, event: ResponsesEvent, item: Item) -> int:
        """Take the announcement of an item; give its place: behind all others, if nothing tells it."""
        place = self._told(event, item.id, item.call_id)
        return self._begin(place, item.type, item.id, item.call_id)

    def done(self, event: ResponsesEvent, item: Item) -> int:
        """Take the end of an item, announced or not; give its place."""
        place = self._told(event, item.id, item.call_id)
        if place is None:
            place = self._last_open(item.type)
        place = self._begin(place, item.type, item.id, item.call_id)
        del self._open[place]
        return place

    def of(self, event: ResponsesEvent, kind: str) -> int:
        """Give the place of the item that an event is about.

        Args:
            event: one that neither announces nor ends an item.
            kind: the type that the item must have. If none of it is open, one begins.
        """
        place = self._told(event, event.item_id)
        if place is None:
            place = self._last_open(kind)
        return self._begin(None, kind, event.item_id) if place is None else place

    def _told(self, event: ResponsesEvent, *ids: object) -> int | None:
        """Give the place that an event names, by its index or else by an id that is known."""
        if type(event.output_index) is int and event.output_index >= 0:
            return event.output_index
        return next((self._by_id[name] for it in ids if (name := text(it)) in self._by_id), None)

    def _last_open(self, kind: str) -> int | None:
        return next((place for place, of_kind in reversed(self._open.items()) if of_kind == kind), None)

    def _begin(self, place: int | None, kind: str, *ids: object) -> int:
        if place is None:
            place = self._next
        self._next = max(self._next, place + 1)
        self._open.pop(place, None)  # to the end of the order
        self._open[place] = kind
        self._by_id.update({name: place for it in ids if (name := text(it))})
        return place
