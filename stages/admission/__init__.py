"""Limits of keys, models and deployments, and of the requests at a time.

`counts` is the memory in which all workers of a node count, `window` counts over a minute in it, `quota` is what one
name may have of it, `turns` the queue for ``max_requests_in_flight``, and `admission` brings them to a request.
Everything but the wait for a turn is synchronous, and takes microseconds.
"""
