"""The built-in stages, one file each, in the order in which a request passes through them.

- ``authenticate``        identify the client by its key, before the body is read
- ``parse_request``       parse the body, in any of its dialects, into one normal form
- ``choose_deployment``   choose the deployment that answers
- ``restore_reasoning``   restore the reasoning of earlier turns, which clients drop
- ``answer_call``         answer the call through what is installed around it, if anything is
- ``call_upstream``       call the chosen upstream, and pass its bytes on as they arrive
- ``decode_events``       decode the upstream's bytes into events
- ``remember_reasoning``  keep the model's reasoning for the next turn
- ``encode_chunks``       encode events as server-sent Chat Completions chunks
- ``keep_alive``          send ``: keepalive`` to the client after a silence
- ``write_sse``           write the stream to the client
- ``collect_completion``  collect all events into one document, for a client that does not stream
- ``write_json``          write the document to the client

`events` defines what flows between them, `slots` what they leave for each other; ``wire`` converts between bytes and
records, without IO; ``upstreams`` calls models. A stage never imports another stage.
"""
