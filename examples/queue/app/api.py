"""Queue a job, ask for its result."""

import os

import flask
from broker import connect, queue
from jobs import count_primes
from rq import Worker
from rq.exceptions import NoSuchJobError
from rq.job import Job

app = flask.Flask(__name__)
LARGEST = int(os.environ["LARGEST"])


@app.get("/")
def summary():
    work = queue()
    return {
        "queued": len(work),
        "finished": work.finished_job_registry.count,
        "failed": work.failed_job_registry.count,
        "workers": Worker.count(connection=work.connection),
    }


@app.post("/jobs")
def submit():
    below = flask.request.args.get("below", "100000")
    if not below.isdecimal() or not 2 <= int(below) <= LARGEST:
        return {"error": f"below must be a number from 2 to {LARGEST}"}, 400
    job = queue().enqueue(count_primes, int(below), result_ttl=3600)
    return {"job": job.id}, 202


@app.get("/jobs/<job>")
def show(job):
    try:
        record = Job.fetch(job, connection=connect())
    except NoSuchJobError:
        return {"error": f"there is no job {job}"}, 404
    return {"job": job, "status": record.get_status(), "result": record.result}
