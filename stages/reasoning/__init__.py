"""A model's reasoning, kept from one turn of a conversation to the next.

Clients drop it: Cursor reads Chat Completions, which has no field for it. ``remember_reasoning`` stores it when an
answer passes, ``restore_reasoning`` puts it back when the conversation returns (ADR 0007).

- ``keys``         the keys of turns: hashes of key name, deployment, conversation, and call id or text
- ``turns``        the reasoning of one turn, and its place among the turn's calls and text
- ``refused``      reasoning that an upstream refuses, and that is forgotten
- ``store``        the protocol of a store, and the store in memory
- ``sqlite_store`` the store on disk
- ``opening``      makes the configured store

Nothing that a client wrote is stored, only hashes of it.
"""
