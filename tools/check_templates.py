"""Compares what veratune makes of conversations with transformers and, with --llama-server, with llama.cpp's server.

    make build model
    .tools/venv/bin/python tools/check_templates.py [--templates FOLDER ...] [--llama-server PATH]

For each template (*.jinja) of the folders, a copy of the model is written whose metadata hold it. On the conversations of the folder's renderings.jsonl that the
template renders, the ids of the prompt and of the training sample, and the mask where the template has {% generation %}, are compared with
apply_chat_template(tokenize=True); the prompt also with what /apply-template answers, tokenized by /tokenize: with the variables that llama.cpp sets by itself, so that
templates write thoughts and keep them.
"""
import argparse
import collections
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from tokenizers import pre_tokenizers
from transformers import AutoTokenizer


def conversations(folder, template):
    """The conversations that a template renders, with more than one message and the assistant's last: as rows."""
    seen = set()
    for line in open(folder / "renderings.jsonl", encoding="utf-8"):
        r = json.loads(line)
        row = {"messages": r["messages"], **({"tools": r["tools"]} if r["tools"] else {})}
        key = json.dumps(row, sort_keys=True)
        if r["template"] != template or "error" in r or key in seen:
            continue
        seen.add(key)
        if r["messages"][-1]["role"] == "user":  # an answer to train on
            row["messages"] = r["messages"] + [{"role": "assistant", "content": "It is so."}]
        if row["messages"][-1]["role"] == "assistant" and len(row["messages"]) > 1:
            yield r["case"], row


def shown(args, model, rows, *options):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as f:
        f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        f.flush()
        out = subprocess.run([args.veratune, "data", "show", f.name, "--model", model, "--template", "chat", "--json", "--rows", str(len(rows)), "--max-length", "1000000", *options],
                             check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


OF_LLAMA = [word for option in ("enable_thinking=true", "preserve_thinking=true", "clear_thinking=false", "truncate_history_thinking=false") for word in ("--template-option", option)]


class Server:
    """llama.cpp's server with a model."""

    def __init__(self, path, model, *options):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.process = subprocess.Popen([path, "-m", model, "--jinja", "--port", str(self.port), "-c", "512", "-t", "2", "--no-warmup", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            if self.process.poll() is not None:
                raise RuntimeError("llama-server has ended; it does not take the template, perhaps")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health").read()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("llama-server does not answer")

    def post(self, path, body):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request))

    def prompt(self, messages, tools):
        text = self.post("/apply-template", {"messages": messages, **({"tools": tools} if tools else {})})["prompt"]
        return self.post("/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]

    def close(self):
        self.process.terminate()
        self.process.wait()


def compare(tokenizer, source, row, ours, counts, say):
    messages, tools = row["messages"], row.get("tools")

    def ids(upto, prompt, **more):
        return tokenizer.apply_chat_template(messages[:upto], tools=tools, chat_template=source, add_generation_prompt=prompt, tokenize=True, return_dict=True, **more)

    try:
        prompt, whole = ids(len(messages) - 1, True)["input_ids"], ids(len(messages), False)["input_ids"]
    except Exception as e:  # what transformers refuses
        counts["refused by transformers"] += 1
        if "reason" not in ours:
            counts["refused by transformers, read as an empty content here"] += 1
        return
    if "reason" in ours:
        counts["NOT READ"] += 1
        return say("refused: " + ours["reason"])
    same = ours["prompt"] == prompt
    counts["prompts equal" if same else "PROMPTS NOT EQUAL"] += 1
    if not same:
        say(f"prompt {tokenizer.decode(ours['prompt'])!r} instead of {tokenizer.decode(prompt)!r}")
    turns = [i + 1 for i, m in enumerate(messages) if m["role"] == "assistant"]
    wanted = [whole] if len(ours["samples"]) == 1 else [ids(n, False)["input_ids"] for n in turns]
    for n, sample, want in zip(turns if len(wanted) > 1 else [len(messages)], ours["samples"], wanted):
        tokens = sample["tokens"]
        if sample["pieces"][-1]["extra"]:
            tokens = tokens[:-1]  # the end that is learnt where the template writes none
        same = tokens == want[: len(tokens)]
        if not same and n > 1:
            before = ids(n - 1, True)["input_ids"]
            if tokenizer.decode(tokens).startswith(tokenizer.decode(before)) and not tokenizer.decode(want).startswith(tokenizer.decode(before)):
                counts["samples with the prompt that the runtime sends, where the template renders the message otherwise"] += 1
                say(f"note: trained as {tokenizer.decode(tokens)[-80:]!r}, rendered as {tokenizer.decode(want)[-80:]!r}")
                continue
        counts["samples equal" if same else "SAMPLES NOT EQUAL"] += 1
        if not same:
            say(f"sample {tokenizer.decode(tokens)!r} instead of {tokenizer.decode(want)!r}")
    if "{% generation" in source.replace("{%-", "{%") and len(ours["samples"]) == 1:
        mask = ids(len(messages), False, return_assistant_tokens_mask=True)["assistant_masks"]
        sample = ours["samples"][0]
        same = [bool(m) for m in mask[: len(sample["tokens"])]] == sample["learnt"] and not any(mask[len(sample["tokens"]):])
        counts["masks equal" if same else "MASKS NOT EQUAL"] += 1
        if not same:
            say(f"mask {sample['learnt']} instead of {mask}")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--veratune", default="bin/veratune")
    p.add_argument("--model", default="models/SmolLM2-135M-Instruct.Q4_1.gguf")
    p.add_argument("--templates", nargs="+", default=["../shared/refs/templates"])
    p.add_argument("--llama-server")
    args = p.parse_args()
    model = pathlib.Path(args.model)
    tokenizer = AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name)
    # Made from a GGUF file, it does not take digits apart, as SmolLM2's own tokenizer does.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    counts = collections.Counter()
    with tempfile.TemporaryDirectory() as scratch:
        copy = pathlib.Path(scratch) / "copy.gguf"
        for path in sorted(t for folder in args.templates for t in pathlib.Path(folder).glob("*.jinja")):
            cases = list(conversations(path.parent, path.name))
            if not cases:
                continue
            copy.unlink(missing_ok=True)
            subprocess.run([sys.executable, "-m", "gguf.scripts.gguf_new_metadata", "--chat-template-file", str(path), "--force", str(model), str(copy)], check=True, capture_output=True)
            source = path.read_text(encoding="utf-8")
            rows = [row for _, row in cases]
            all_ours = shown(args, str(copy), rows)
            for (case, row), ours in zip(cases, all_ours):
                compare(tokenizer, source, row, ours, counts, lambda what: print(f"{path.name}, {case}: {what}"))
            if args.llama_server:
                try:
                    server = Server(args.llama_server, str(copy))
                except RuntimeError as e:
                    counts["templates that llama.cpp does not take"] += 1
                    print(f"{path.name}: {e}")
                    continue
                for (case, row), ours in zip(cases, shown(args, str(copy), rows, *OF_LLAMA)):
                    try:
                        prompt = server.prompt(row["messages"][:-1], row.get("tools"))
                    except OSError as e:
                        counts["prompts refused by llama.cpp"] += 1
                        continue
                    same = prompt == ours.get("prompt")
                    counts["llama.cpp's prompts equal" if same else "LLAMA.CPP'S PROMPTS NOT EQUAL"] += 1
                    if not same:
                        print(f"{path.name}, {case}: llama.cpp sends {tokenizer.decode(prompt)!r} instead of {tokenizer.decode(ours.get('prompt') or [])!r}")
                server.close()
    for what, n in counts.items():
        print(f"{n:6d} {what}")
    sys.exit(any(what.isupper() for what in counts))


if __name__ == "__main__":
    main()
