"""The shop's API: products and orders, kept in PostgreSQL."""

import itertools
import os
import socket
import time
from pathlib import Path

import flask
import psycopg2

SCHEMA = """
SELECT pg_advisory_xact_lock(1);
CREATE TABLE IF NOT EXISTS products (id serial PRIMARY KEY, name text UNIQUE NOT NULL, cents int NOT NULL);
CREATE TABLE IF NOT EXISTS orders (
    id serial PRIMARY KEY,
    product int NOT NULL REFERENCES products,
    at timestamptz NOT NULL DEFAULT now());
INSERT INTO products (name, cents) VALUES ('Honey', 790), ('Candle', 450), ('Straw hive', 12900)
ON CONFLICT DO NOTHING;
"""


def connect():
    return psycopg2.connect(
        host=os.environ["DB_HOST"],
        dbname=os.environ["DB_NAME"],
        user="postgres",
        password=Path("/run/secrets/db_password").read_text().strip(),
        connect_timeout=5,
    )


def query(sql, *parameters):
    connection = connect()
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def prepare(attempts=30):
    """Make the tables; all replicas may try at once, and the database may still be starting."""
    for attempt in range(attempts):
        try:
            query(SCHEMA)
            return
        except psycopg2.OperationalError as error:
            print(f"waiting for the database ({attempt + 1}/{attempts}): {error}", flush=True)
            time.sleep(1)
    raise SystemExit("the database did not answer")


prepare()
app = flask.Flask(__name__)


FAULTS = int(os.environ.get("SHOP_FAULTS") or 0)
"""One question for the shop in so many is answered with an error: what a bad release looks like."""
asked = itertools.count(1)


@app.get("/api/health")
def health():
    query("SELECT 1")
    return {"status": "ok"}


@app.get("/api/shop")
def shop():
    if FAULTS and next(asked) % FAULTS == 0:
        return {"error": "this release is broken"}, 500
    rows = query("SELECT id, name, cents FROM products ORDER BY id")
    products = [{"id": number, "name": name, "cents": cents} for number, name, cents in rows]
    return {
        "title": os.environ.get("SHOP_TITLE", "Shop"),
        "version": os.environ["SHOP_VERSION"],
        "products": products,
        "orders": query("SELECT count(*) FROM orders")[0][0],
        "served_by": socket.gethostname(),
    }


@app.post("/api/orders")
def order():
    product = flask.request.get_json()["product"]
    try:
        [(number,)] = query("INSERT INTO orders (product) VALUES (%s) RETURNING id", product)
    except psycopg2.errors.ForeignKeyViolation:
        return {"error": f"there is no product {product}"}, 404
    return {"order": number}, 201
