"""An HTTP/1.1 client on trio, under httpx's API."""
