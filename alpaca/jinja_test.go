package alpaca

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// TestJinja is what Jinja 3 makes of templates as Hugging Face sets it up; an error's text begins with "!".
func TestJinja(t *testing.T) {
	c := conversation{messages: []Message{{Role: User, Content: "Hi"},
		{Role: Assistant, Fields: []Field{{"role", quote(Assistant)}, {"content", []byte("null")},
			{"x", []byte(`{"b": 1.0, "a": ["ü", null, true]}`)}}}}}
	for template, want := range map[string]string{
		"a \n  {% if true %}\n  b\n  {%- endif %} \n c\n":         "a \n  b \n c",
		"{{ 1 }} {%+ if true +%}\nx{% endif %}":                   "1 \nx",
		"x {{ bos_token }}{%- if true %} y{% endif %}{# no #}\nz": "x <s> yz",
		"{% raw %}{{ x }}{% endraw %}\n!":                         "{{ x }}!",
		`{{ "a\u00e9\x41\n" }}{{ 'it\'s }} %}' }}`:                "aéA\nit's }} %}",
		"{{ messages[1].x | tojson }}":                            `{"b": 1.0, "a": ["ü", null, true]}`,
		"{{ messages[1].x | tojson(indent=1) }}": "{\n \"b\": 1.0,\n \"a\": [\n  " +
			"\"ü\",\n  null,\n  true\n ]\n}",
		"{{ messages[1].x }} {{ messages[1].content }}{{ nothing }}": "{'b': 1.0, 'a': ['ü', None, " +
			"True]} None",
		"{{ messages[1].content + 'x' }}":                                        "!cannot be added",
		"{{ 'x' in messages[1].content }}":                                       "!holds nothing",
		"{% for c in messages[1].content %}{% endfor %}":                         "!holds nothing",
		"{{ messages[1].content | length }}":                                     "!has none",
		"{{ messages[0].y.z }}":                                                  "!messages[0].y is not there",
		"{{ messages[7].role }}":                                                 "!messages[7] is not there",
		"{{ messages.append(1) }}":                                               "!append",
		"{{ messages | map(attribute='role') | tojson }}":                        "!takes a list",
		"{{ messages | map(attribute='role') | list | tojson }}":                 `["user", "assistant"]`,
		"{% for i in range(3) %}{{ i }}{% endfor %}{{ range(5, 1, -2) | list }}": "012[5, 3]",
		"{{ range(10000000000) }}":                                               "!more than 100000",
		"{{ strftime_now('%Y-%m-%d %B %-d') }}":                                  "2026-01-31 January 31",
		"{{ raise_exception('No ' + messages[0].role) }}":                        "!No user",
		"{% if %}":                "!",
		"a\n{{ 'x }}":             "!line 2: a string has no end",
		"{% for m in messages %}": "!",
		"{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}": "2",
		"{{ '<' | safe + '<b>' }}": "<&lt;b&gt;",
		"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "!call each other " +
			"without end",
		"{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}": "3210",
		"{{ 'a' * 100000000000 }}": "!multiplies with",
		"{{ 'a' * 3 }}":            "aaa",
		"{% for i in range(100000) %}" +
			"{% for j in range(100000) %}{% endfor %}{% endfor %}": "!comes to no end",
		"{% set ns = namespace(s='ab') %}" +
			"{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}": "!comes to no end",
		"{% set ns = namespace(s='ab') %}" +
			"{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}": "!comes to no end",
		"{{ mood or 'none' }}": "calm",
	} {
		tok := specialTokens{bos: "<s>", eos: "</s>"}
		controls := newControls(tok)
		variables := map[string]string{"mood": "calm"}
		got := ""
		chat, err := newChatTemplate("the template", template, tok, controls, rawVariables(variables),
			time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC))
		if err == nil {
			var r rendered
			r, err = chat.render(c, true)
			got = r.text
		}
		if err != nil {
			got = "!" + err.Error()
		}
		if got != want && !(strings.HasPrefix(want, "!") && strings.HasPrefix(got, "!") &&
			strings.Contains(got, want[1:])) {
			t.Errorf("%q gives %q, want %q", template, got, want)
		}
	}
}

// FuzzJinja compiles and renders whatever comes. Nothing may panic.
func FuzzJinja(f *testing.F) {
	for _, s := range []string{chatML, bracketed, smol, AlpacaJinja, "{% raw %}{{", "{{ 'a' + b[0].c | tojson }}",
		"{%- generation -%}x{% endgeneration %}", "{# #}{%+ if x in y.z %}{% endif %}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, source string) {
		tok := specialTokens{bos: "<s>", eos: "</s>"}
		controls := newControls(tok)
		if chat, err := newChatTemplate("the template", source, tok, controls, nil, time.Time{}); err == nil {
			chat.render(conversation{messages: []Message{{Role: User, Content: "Hi <s>"},
				{Role: Assistant, Content: "Ho"}}}, true)
		}
	})
}

func rawVariables(texts map[string]string) map[string]json.RawMessage {
	raw := map[string]json.RawMessage{}
	for name, text := range texts {
		raw[name] = quote(text)
	}
	return raw
}
