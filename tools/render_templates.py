"""Renders conversations with every chat template of a folder by transformers, for TestTemplateRenderings.

    .tools/venv/bin/python tools/render_templates.py FOLDER
    VERATUNE_TEMPLATES=FOLDER go test ./alpaca -run TestTemplateRenderings -v

FOLDER holds *.jinja; renderings.jsonl is written beside them.
"""
import hashlib
import json
import pathlib
import sys

from transformers.utils.chat_template_utils import render_jinja_template

TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather of a <city> & its 'surroundings'.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "Name of the city"}, "days": {"type": "integer", "default": 1},
                                     "limit": {"type": "number", "default": 1.0, "enum": [1.0, 2.5e-7]}}, "required": ["city"]}}}]


def call(content, **message):
    return {"role": "assistant", "content": content, "tool_calls": [
        {"id": "call00001", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Köln", "limit": 2.0, "near": ["a\"b", None, True]}}}], **message}


def conversations():
    user, hi, yo = [{"role": "user", "content": "Hello  there\n"}], {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}
    think = {"role": "assistant", "content": "<think>\nadd\n</think>\n\n4"}
    asked, answer = {"role": "user", "content": "Weather in Köln?"}, {"role": "tool", "tool_call_id": "call00001", "name": "get_weather", "content": "12 °C"}
    yield "user", user, None, (False, True)
    yield "system", [{"role": "system", "content": "Be brief."}, hi], None, (False, True)
    yield "turns", [hi, yo, {"role": "user", "content": "And?"}, {"role": "assistant", "content": "Fine, thanks. "}], None, (False,)
    yield "think", [{"role": "user", "content": "2+2?"}, think, {"role": "user", "content": "3+3?"}, think], None, (False,)
    yield "reasoning", [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4", "reasoning_content": "add"}, hi], None, (False, True)
    yield "thinking", [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4", "thinking": "add"}], None, (False,)
    yield "unicode", [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "naïve 日本語 😀 {{ x }} {% y %}"}, {"role": "assistant", "content": " ok "}], None, (False,)
    yield "tools", [asked, call(None), answer, {"role": "assistant", "content": "12 degrees."}], TOOLS, (False,)
    yield "tools, text", [asked, call(""), answer, {"role": "assistant", "content": "12 degrees."}, hi], TOOLS, (False, True)
    yield "tools, system", [{"role": "system", "content": "Be brief."}, asked, call("Let me see."), answer], TOOLS, (True,)
    yield "two users", [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], None, (False, True)
    yield "no content", [hi, {"role": "assistant", "content": None}, hi], None, (True,)
    yield "assistant first", [yo, hi], None, (True,)
    yield "system only", [{"role": "system", "content": "Be brief."}], None, (False, True)


def main():
    folder = pathlib.Path(sys.argv[1])
    with open(folder / "renderings.jsonl", "w", encoding="utf-8") as out:
        for path in sorted(folder.glob("*.jinja")):
            source = path.read_text(encoding="utf-8")
            for case, messages, tools, prompts in conversations():
                for prompt in prompts:
                    line = {"template": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "case": case, "messages": messages, "tools": tools,
                            "add_generation_prompt": prompt, "bos_token": "<s>", "eos_token": "</s>"}
                    try:
                        texts, _ = render_jinja_template([messages], tools=tools, chat_template=source, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>")
                        line["text"] = texts[0]
                    except Exception as e:  # whatever a template raises
                        line["error"] = str(e)
                    out.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
