"""Bytes to records and back, sans-IO: no loop, no clock, no network, so that all of it can be fuzzed.

``sse`` splits and frames events. ``responses`` decodes the Responses API's output into `stages.events`; its parts are
``responses_records`` (what is read from foreign JSON), ``responses_events`` (what each event means),
``responses_text``, ``responses_calls`` and ``responses_failures``. ``chat``, with ``chat_parts``, encodes
`stages.events` as Chat Completions in the manner of one of the ``profiles``. The other modules read requests.
"""
