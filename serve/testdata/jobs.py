"""Trains an adapter with OpenAI's client, and asks it: jobs.py ADDRESS KEY ROWS."""

import sys
import time

import openai

address, key, path = sys.argv[1:]
client = openai.OpenAI(base_url=address, api_key=key, max_retries=0)
jobs = client.fine_tuning.jobs


def wait(job, status):
    deadline = time.time() + 120
    while job.status != status:
        assert job.status not in ("failed", "cancelled") and time.time() < deadline, job
        time.sleep(0.05)
        job = jobs.retrieve(job.id)
    return job


def create(**more):
    hyperparameters = {"n_epochs": 2, "batch_size": 4, "rank": 8}
    return jobs.create(
        model="tiny",
        training_file=rows.id,
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        **more,
    )


with open(path, "rb") as file:
    rows = client.files.create(file=file, purpose="fine-tune")
assert rows.filename == "rows.jsonl" and rows.status == "processed", rows
assert client.files.wait_for_processing(rows.id).id == rows.id
assert [f.id for f in client.files.list(purpose="fine-tune")] == [rows.id]
with open(path, "rb") as file:
    assert client.files.content(rows.id).read() == file.read()

job = create(suffix="sums", seed=3, metadata={"for": "test"})
assert job.object == "fine_tuning.job" and job.status == "validating_files" and job.seed == 3, job
assert job.hyperparameters.n_epochs == 2 and job.method.supervised.hyperparameters.batch_size == 4, job
assert job.fine_tuned_model is None and job.error is None and job.metadata == {"for": "test"}, job

paused = jobs.pause(job.id)
assert paused.status == "paused", paused
job = wait(jobs.resume(job.id), "succeeded")
assert job.fine_tuned_model.startswith("ft:tiny:sums:") and job.trained_tokens > 0, job
assert job.finished_at >= job.created_at, job

table = client.files.content(job.result_files[0]).text.splitlines()
assert table[0] == "step,train_loss,valid_loss,learning_rate" and len(table) == 21, table
assert client.files.retrieve(job.result_files[0]).purpose == "fine-tune-results"

events = list(jobs.list_events(job.id, limit=5))
steps = [e.data["step"] for e in events if e.type == "metrics"]
assert steps == list(range(20, 0, -1)), steps
assert events[0].message == "The job has successfully completed", events[0]
assert events[-1].message.startswith("Created fine-tuning job"), events[-1]
assert len({e.id for e in events}) == len(events)

checkpoints = jobs.checkpoints.list(job.id)
assert [c.step_number for c in checkpoints] == [20, 10], checkpoints
models = {m.id for m in client.models.list()}
for name in [job.fine_tuned_model] + [c.fine_tuned_model_checkpoint for c in checkpoints]:
    assert name in models, (name, models)
    answer = client.chat.completions.create(
        model=name, messages=[{"role": "user", "content": "add 3"}], max_completion_tokens=4
    )
    assert answer.model == name and answer.choices[0].finish_reason in ("stop", "length"), answer

other = create()
assert jobs.cancel(other.id).status == "cancelled"
assert [j.id for j in jobs.list(limit=1)] == [other.id, job.id]
assert [j.id for j in jobs.list(extra_query={"metadata[for]": "test"})] == [job.id]

try:
    jobs.create(model="tiny", training_file="file-none")
    raise AssertionError("a file that is not there is trained on")
except openai.BadRequestError as error:
    assert error.param == "training_file" and error.type == "invalid_request_error", error
try:
    jobs.retrieve("ftjob-none")
    raise AssertionError("a job that is not there")
except openai.NotFoundError:
    pass
assert client.files.delete(rows.id).deleted
