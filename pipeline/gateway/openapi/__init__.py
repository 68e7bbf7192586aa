"""``/openapi.json``: an OpenAPI 3.1 document, made of paths, types and the table of errors.

What those do not say (sentences, parameters of a query, which errors a path has) is in `operations`.
Source: https://spec.openapis.org/oas/v3.1.1 (2024-10).
"""
