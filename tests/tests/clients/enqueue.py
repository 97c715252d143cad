"""What a Python service does: enqueue by INSERT … RETURNING in its own transaction, as a member of sluice_enqueue, with psycopg."""

import os
import sys
import time

import psycopg
import psycopg.types.json

url, sync, key = os.environ["SERVICE_URL"], os.environ["SYNC"], os.environ["KEY"]
INSERT = "insert into sluice.job (kind, args) values (%s, %s) returning id, created_at"


def result(connection, job):
    return connection.execute("select sluice.job_result(%s)", [job]).fetchone()[0]


def refused(connection, kind, args, expected):
    try:
        connection.execute(INSERT, [kind, psycopg.types.json.Jsonb(args)])
    except psycopg.Error as error:
        message = error.diag.message_primary
        assert expected in message, f"expected {expected!r} in {message!r}"
        return
    sys.exit(f"{kind} {args} was accepted")


with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
    push = psycopg.types.json.Jsonb({"sync": sync, "key": key})
    with connection.transaction(force_rollback=True):
        rolled_back, _ = connection.execute(INSERT, ["push", push]).fetchone()
    assert result(connection, rolled_back) is None, "a rolled back insert left a job"

    with connection.transaction():
        job, created_at = connection.execute(INSERT, ["push", push]).fetchone()
        assert created_at is not None
    deadline = time.monotonic() + 30
    while result(connection, job) != "done":
        assert time.monotonic() < deadline, f"job {job} is {result(connection, job)}"
        time.sleep(0.02)

    by_function = connection.execute("select sluice.enqueue('push', %s)", [push]).fetchone()[0]
    assert by_function > job

    refused(connection, "nonsense", {}, 'unknown job kind "nonsense"')
    refused(connection, "push", {"sync": sync}, 'needs "key"')
    refused(connection, "push", {"sync": "nowhere", "key": key}, 'unknown sync "nowhere"')
    call = {"connection": "main", "product": "billing", "method": "GET", "path": "/customers"}
    refused(connection, "call", call, 'may not insert "call" jobs')
