"""What a model has reasoned, kept from one turn of a conversation to the next.

Clients drop it: Cursor reads Chat Completions, which has no field for it. ``remember_reasoning`` keeps it when an
answer passes, ``restore_reasoning`` puts it back when the conversation returns (ADR 0007).

- ``keys``         whose turn it is: hashes of key name, deployment, conversation, and call id or text
- ``turns``        one turn's reasoning, and its place among the turn's calls and text
- ``store``        where it is kept: the protocol, and the store in memory
- ``sqlite_store`` the store on disk
- ``opening``      opens the one that is configured

Nothing that a client wrote is stored, only hashes of it.
"""
