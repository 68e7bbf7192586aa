"""Bytes to records and back, sans-IO: no loop, no clock and no network, so that all of it can be fuzzed.

- ``downstream``: what clients write and read, which is requests in three dialects and Chat Completions responses.
- ``responses``, ``chat`` and ``anthropic``: one upstream API each, with its requests and the decoder of its answers.
  They are independent of one another and of ``downstream``.
- ``answers``: what all decoders of answers share.
- The modules beside the folders are the neutral ground for all of them: ``sse`` splits and frames events,
  ``foreign_json`` reads JSON without trust, ``normal_form`` knows the one form that every request is brought into,
  ``api`` is what each upstream API exports, and ``function_tools``, ``custom_tools``, ``unwrap``, ``call_ids``,
  ``openai_models``, ``redaction`` and ``bad_request`` hold one rule each.
"""
