"""Which item of the output an event of a Responses upstream is about.

The ``output_index`` decides if there is one, whatever ids are beside it: GitHub Copilot sends a different id in every
event (docs/facts/translation.md, "Which item an event is about"). No recorded upstream omits the index. For one that
does, the ids with which it announced its items decide; for one that sends no ids either, or always different ones, the
order does: an event is about the item of its kind that was opened last.
"""

from __future__ import annotations

from stages.wire.foreign_json import is_index, text
from stages.wire.responses.records import Item, ResponsesEvent


class OutputPlaces:
    """The items of one answer by their places in the output: 0, 1, 2 ..."""

    def __init__(self, mended: set[str]) -> None:
        self._mended = mended
        self._by_id: dict[str, int] = {}
        self._open: dict[int, str] = {}  # types of the items that have not ended, in the order of their start
        self._next = 0

    def added(self, event: ResponsesEvent, item: Item) -> int:
        """Take the announcement of an item and return its place: after all others if nothing names it."""
        place = self._named(event, item.id, item.call_id)
        return self._start(place, item.type, item.id, item.call_id)

    def done(self, event: ResponsesEvent, item: Item) -> int:
        """Take the end of an item, announced or not, and return its place."""
        place = self._named(event, item.id, item.call_id)
        if place is None:
            place = self._last_open(item.type)
        place = self._start(place, item.type, item.id, item.call_id)
        del self._open[place]
        return place

    def of(self, event: ResponsesEvent, kind: str) -> int:
        """Return the place of the item that an event is about.

        Args:
            event: an event that does not announce or end an item.
            kind: the type that the item must have. If no item of this type is open, one starts.
        """
        place = self._named(event, event.item_id)
        if place is None:
            place = self._last_open(kind)
        return self._start(None, kind, event.item_id) if place is None else place

    def _named(self, event: ResponsesEvent, *ids: object) -> int | None:
        """Return the place that an event names by its index, or else by a known id."""
        if is_index(event.output_index):
            return event.output_index
        if event.output_index is not None:
            self._mended.add("item_index")
        return next((self._by_id[name] for it in ids if (name := text(it)) in self._by_id), None)

    def _last_open(self, kind: str) -> int | None:
        return next((place for place, of_kind in reversed(self._open.items()) if of_kind == kind), None)

    def _start(self, place: int | None, kind: str, *ids: object) -> int:
        if place is None:
            place = self._next
        self._next = max(self._next, place + 1)
        self._open.pop(place, None)  # to the end of the order
        self._open[place] = kind
        self._by_id.update({name: place for it in ids if (name := text(it))})
        return place
