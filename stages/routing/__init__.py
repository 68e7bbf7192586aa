"""Which deployment answers, and which one next if it does not: policy without IO.

- `settings`: what the operator wants, in LiteLLM's words.
- `faults`: what kind of failure it is, which decides what follows.
- `health`: which deployments are worth asking, from what has happened to them.
- `budget`: how much may be repeated, so that an outage is not made worse.
- `affinity`: a conversation keeps its deployment, without a store.
- `router`: all of that for one process. `Route` is one request's way through it.
"""
