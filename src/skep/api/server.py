"""The HTTP server around the API: uvicorn with the settings that streams and uploads need."""

import ssl

import uvicorn
from litestar import Litestar

from skep.api.patience import Patience


def make_server(app: Litestar, host: str, port: int, tls: ssl.SSLContext | None = None) -> uvicorn.Server:
    """A server to `await server.serve()`; setting `server.should_exit` ends it within two seconds.

    Followers of streams never end by themselves, hence the short grace.
    """
    config = uvicorn.Config(
        Patience(app),
        host=host,
        port=port,
        http="h11",
        ws="websockets-sansio",
        ws_max_size=1024 * 1024,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=64 * 1024,
    )
    config.load()
    config.ssl = tls
    return uvicorn.Server(config)
