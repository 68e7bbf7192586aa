"""The built-in stages, one file each, in the order in which a request passes them.

- ``authenticate``        find out whose request this is, before its body is read
- ``parse_request``       read the body, whatever dialect it is in, as one normal form
- ``choose_deployment``   choose who answers
- ``restore_reasoning``   put back the reasoning of earlier turns, which clients drop
- ``call_upstream``       ask the chosen upstream, and pass its bytes on as they arrive
- ``decode_events``       turn the upstream's bytes into events
- ``remember_reasoning``  keep the model's reasoning for the next turn
- ``encode_chunks``       turn events into server-sent Chat Completions chunks
- ``keep_alive``          say ``: keepalive`` to a client that has heard nothing for a while
- ``write_sse``           write the stream to the client
- ``collect_completion``  gather all events into one document, for a client that does not stream
- ``write_json``          write a document to the client

`events` is what flows between them and `slots` is what stays; ``wire`` turns bytes into records and back, without IO;
``upstreams`` talks to models. A stage never imports a stage.
"""
