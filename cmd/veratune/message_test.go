package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/internal/testutil"
)

// TestMessages has commands refuse what people mistype, in one line of words.
func TestMessages(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 20)
	config := func(text string) string { return write(t, "options.yaml", text) }
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	run := filepath.Join(t.TempDir(), "run")
	if code, _, stderr := veratune(alpacaArgs(model, data, run, "--max-steps", "1")...); code != 0 {
		t.Fatal(stderr)
	}
	const absent = "nowhere.gguf"
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		// values
		{"alpaca --model M --rank few", exitUsage, `--rank "few": want a whole number`},
		{"alpaca --model M --layers x", exitUsage, `--layers "x"`},
		{"alpaca --model M --seed -1", exitUsage, `--seed "-1": want a whole number, 0 or more`},
		{"alpaca --model M --lr 1e", exitUsage, `--lr "1e": want a number`},
		{"alpaca --model M --max-time 7", exitUsage, `--max-time "7": want a time such as 7h30m`},
		{"alpaca --model M --resume=maybe", exitUsage, `--resume "maybe": want true or false`},
		{"alpaca --model M --eval-every often", exitUsage, `--eval-every "often"`},
		{"alpaca --model M --threads 99999999999999999999", exitUsage,
			`--threads "99999999999999999999": want a whole number`},
		{"alpaca --model M --rank", exitUsage, "--rank: needs a value behind it"},
		{"loss --model M --data D --adapter=", exitUsage, "--adapter: is given, and empty"},
		{"generate x --model M --adapter=", exitUsage, "--adapter: is given, and empty"},
		{"mtbench judge --prompts= --judge-model M", exitUsage, "--prompts: is given, and empty"},
		{"alpaca --model M --config= --data D", exitUsage, "--config: is given, and empty"},
		{"alpaca --model M --accumulation 0", exitUsage, "--accumulation 0"},
		{"alpaca --model M -o a --out b --rank 0", exitUsage, "--rank 0"}, // the last one counts
		{"generate --model M -p x --top-k=-1", exitUsage, "--top-k -1"},
		{"mtbench run --model M --parallel x", exitUsage, `--parallel "x": want a whole number`},
		{"alpaca --config " + config("rank: few") + " --model M", exitUsage,
			`line 1: rank: "few": want a whole number`},
		{"alpaca --config " + config("a: [1, 2") + " --model M", exitUsage, "options.yaml: line "},
		{"alpaca --config " + config("learning-rate: 1") + " --model M", exitUsage,
			"no such option of alpaca; is lr meant?"},
		{"watch RUN --listen 8372", exitUsage, "--listen 8372: want an address and a port, such as 127.0.0.1:8372"},
		{"watch RUN --listen " + taken.Addr().String(), exitFailed,
			"address already in use; another address can be given with --listen"},

		// names
		{"alpaca --model M --learning-rate 1", exitUsage,
			"no option --learning-rate; is --lr meant? (veratune alpaca --help lists them)"},
		{"alpaca --model M --max_length 1", exitUsage, "no option --max_length; is --max-length meant?"},
		{"alpaca --model M --batch_size=1", exitUsage, "no option --batch_size; is --batch meant?"},
		{"mtbench run --modle M", exitUsage,
			"no option --modle; is --model meant? (veratune mtbench run --help lists them)"},
		{"generate --qqqq", exitUsage, "no option --qqqq (veratune generate --help lists them)"},
		{"--modle", exitUsage, "no option --modle (veratune --help lists them)"},
		{"alpcaa", exitUsage, `no command "alpcaa"; is alpaca meant? (veratune --help lists them)`},
		{"finetune", exitUsage, `no command "finetune"; is alpaca meant?`},
		{"qqqq", exitUsage, `no command "qqqq" (veratune --help lists them)`},
		{"help foo", exitUsage, `no command "foo" (veratune --help lists them)`},
		{"mtbench jugde", exitUsage, `no command "jugde"; is judge meant? (veratune mtbench --help lists them)`},
		{"help mtbench jugde", exitUsage, `no command "jugde"; is judge meant?`},
		{"help mtbench judge", 0, ""},
		{"help alpaca", 0, ""},
		{"help", 0, ""},
		{"mtbench help run", exitUsage, `no command "help"`},
		{"help alpaca x", exitUsage, `no command "alpaca x"`},
		{"help mtbench run x", exitUsage, `no command "mtbench run x"`},
		{"--help x", exitUsage, `no command "x"`},
		{"-h mtbench run", 0, ""},
		{"generate x --help", 0, ""},
		{"data check --json x y -h", 0, ""},
		{"-", exitUsage, `no command "-"`},
		{"mtbench -", exitUsage, `no command "-"`},
		{"data check ---", exitUsage, "no option ---"},
		{"--=x", exitUsage, "no option --"},
		{"-- nosuch", exitUsage, `no command "nosuch"`},
		{"help -- foo", exitUsage, `no command "foo"`},
		{"alpaca --generate-bash-completion --rank", exitUsage, "no option --generate-bash-completion"},

		// options come before files
		{"alpaca --model " + absent + " --targets q_proj", exitUsage, `--targets: "q_proj" must be one of`},
		{"alpaca --model " + absent + " --dropout 2", exitUsage, "--dropout 2"},
		{"alpaca --model " + absent + " --init zeros", exitUsage, `--init "zeros"`},
		{"alpaca --model " + absent + " --method lora --alpha 0", exitUsage, "--alpha 0"},
		{"plan --model " + absent + " --rank 0", exitUsage, "--rank 0"},
		{"bench train --model " + absent + " --rank 0", exitUsage, "--rank 0"},
		{"export --model " + absent + " --adapter A --to lora --type q4_0 -o x", exitUsage, `--type "q4_0"`},
		{"export --model " + absent + " --adapter A --to merged --budget lots -o x", exitUsage, `--budget "lots"`},
		{"export --model " + absent + " --adapter A --to gguf -o x", exitUsage, `--to "gguf"`},
		{"alpaca --model " + absent + " --resume --force", exitUsage, "--resume and --force: give one of them"},

		// files
		{"alpaca --model " + absent, exitFailed, absent},
		{"inspect " + absent, exitFailed, absent + ": no such file or folder"},
		{"alpaca --model M --config nowhere.yaml", exitFailed, "nowhere.yaml: no such file or folder"},
		{"export --model M --adapter RUN/adapter.gguf --to vera -o nosuchdir/x.gguf", exitFailed,
			"nosuchdir/x.gguf: there is no folder nosuchdir; make it first"},
		{"export --model M --adapter RUN/adapter.gguf --to peft -o nosuchdir/x", exitFailed,
			"nosuchdir/x: there is no folder nosuchdir; make it first"},
		{"export --model M --adapter RUN/adapter.gguf --to peft -o " + config(""), exitFailed,
			"is there already, and is no folder"},
		{"data convert nowhere.json", exitFailed, "nowhere.json: no such file or folder"},
		{"alpaca --model M --data D --out RUN", exitFailed, "--resume goes on with it, --force starts anew"},
	} {
		args := strings.Fields(c.args)
		for i, word := range args {
			switch {
			case word == "M":
				args[i] = model
			case word == "D":
				args[i] = data
			case strings.HasPrefix(word, "RUN"):
				args[i] = run + word[len("RUN"):]
			}
		}
		code, _, stderr := veratune(args...)
		if code != c.code || !strings.Contains(stderr, c.says) || code != 0 && strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q, want %d, %q", c.args, code, stderr, c.code, c.says)
		}
	}
}

// TestOptionsBehindArguments gives every command with arguments its options behind them.
func TestOptionsBehindArguments(t *testing.T) {
	for _, c := range leaves(newApp(nil, nil).Commands) {
		for _, f := range c.Flags {
			for _, name := range f.Names() {
				dashes := "--"
				if len(name) == 1 {
					dashes = "-"
				}
				args := []string{"veratune", c.Name, "argument", dashes + name}
				want := []string{"veratune", c.Name, "--" + f.Names()[0], "argument"}
				if _, isBool := f.(*cli.BoolFlag); !isBool {
					args, want[2] = append(args, "value"), want[2]+"=value"
				}
				app := &cli.App{Name: "veratune", Commands: []*cli.Command{c}}
				if got, err := arrange(app, args); err != nil || strings.Join(got, " ") != strings.Join(want, " ") {
					t.Errorf("%v: %v, %v", args, got, err)
				}
			}
		}
	}
}
