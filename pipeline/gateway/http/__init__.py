"""An ASGI server on trio for HTTP/1.1; it knows nothing about headrace."""
