"""Has OpenAI's client for Python list models, ask them, and take errors. Arguments: the server's URL and its key."""

import sys

import openai

url, key = sys.argv[1:]
client = openai.OpenAI(base_url=url, api_key=key, max_retries=0)
parts = [{"type": "text", "text": "add"}, {"type": "text", "text": "3"}]
messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": parts}]

ids = [m.id for m in client.models.list()]
assert ids == ["tiny", "lora", "one", "two"], ids
assert client.models.retrieve("one").veratune["facts"]["steps"] == "12"

for model in ids:
    whole = client.chat.completions.create(model=model, messages=messages, max_completion_tokens=12, temperature=0,
                                           logprobs=True, top_logprobs=2, user="someone", store=False)
    choice = whole.choices[0]
    assert len(choice.logprobs.content) == whole.usage.completion_tokens, choice
    text, usage, ending = "", None, None
    for chunk in client.chat.completions.create(model=model, messages=messages, max_tokens=12, temperature=0,
                                                stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for c in chunk.choices:
            text += c.delta.content or ""
            ending = c.finish_reason or ending
    assert text == choice.message.content and ending == choice.finish_reason, (text, ending, whole)
    assert usage.total_tokens == whole.usage.total_tokens, (usage, whole)

    stop = text[3:5]
    cut = client.chat.completions.create(model=model, messages=messages, max_tokens=12, temperature=0, stop=[stop])
    assert cut.choices[0].message.content == text[:text.index(stop)] and cut.choices[0].finish_reason == "stop", cut

answer = client.completions.create(model="two", prompt=["it is", "add"], max_tokens=5, echo=True, n=2, seed=1)
assert [c.text.startswith(p) for c, p in zip(answer.choices, ["it is", "it is", "add", "add"])] == [True] * 4, answer
stream = client.completions.create(model="two", prompt="it is", max_tokens=5, stream=True, temperature=0)
text = "".join(c.choices[0].text for c in stream)
assert text == client.completions.create(model="two", prompt="it is", max_tokens=5, temperature=0).choices[0].text, text


def fails(kind, code, **arguments):
    """Checks the error of a request."""
    try:
        client.chat.completions.create(**{"model": "one", "messages": messages, "max_tokens": 2, **arguments})
    except kind as e:
        assert e.code == code, e
    else:
        raise AssertionError(f"{arguments} is answered")


fails(openai.NotFoundError, "model_not_found", model="three")
fails(openai.BadRequestError, "context_length_exceeded", messages=[{"role": "user", "content": "word " * 600}])
fails(openai.BadRequestError, None, messages=[{"role": "king", "content": "x"}])
fails(openai.BadRequestError, "unsupported_value", response_format={"type": "json_object"})
fails(openai.BadRequestError, None, temperature=-1)
try:
    openai.OpenAI(base_url=url, api_key="wrong", max_retries=0).models.list()
except openai.AuthenticationError as e:
    assert e.code == "invalid_api_key", e
else:
    raise AssertionError("a wrong key is taken")
