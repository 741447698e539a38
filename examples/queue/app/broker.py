"""The way to the broker, for everybody here."""

import os
from pathlib import Path

from redis import Redis
from rq import Queue


def connect():
    password = Path("/run/secrets/broker_password").read_text().strip()
    return Redis(os.environ["REDIS_HOST"], password=password, socket_connect_timeout=5)


def queue():
    timeout = int(os.environ.get("JOB_TIMEOUT", "30"))
    return Queue(os.environ["QUEUE"], connection=connect(), default_timeout=timeout)
