// Command layering checks, over `go list`, which of this module's packages import which, and that C is called only
// where it may be.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

const module = "github.com/veratune/veratune/"

// allowed lists, for each package by its path in the module, those of the module's packages that it may import; "x/..."
// stands for x and all packages below it. The tests of a package may import testsOnly besides.
var allowed = map[string][]string{
	"cmd/veratune": {"bindings/onearena", "serve", "finetune", "generate", "evaluate", "session", "train", "watch",
		"mtbench", "alpaca", "model", "vera", "tokenizer", "internal/terminal", "internal/hub", "internal/mpi",
		"internal/durable"},
	"serve": {"session", "generate", "finetune", "train", "watch", "alpaca", "model", "vera",
		"internal/durable"},
	"finetune":          {"session", "generate", "train", "alpaca", "model", "vera", "internal/durable"},
	"evaluate":          {"session", "generate", "mtbench", "alpaca", "model", "vera"},
	"generate":          {"session", "alpaca", "model"},
	"session":           {"alpaca", "model", "vera"},
	"train":             {"model", "vera", "internal/terminal", "internal/hub", "internal/durable"},
	"watch":             {"train", "internal/durable"},
	"model":             {"vera", "bindings", "tokenizer"},
	"vera":              {"bindings", "internal/durable"},
	"bindings":          {"ggml/...", "internal/durable"},
	"bindings/onearena": {},
	"ggml/...":          {"ggml/..."},
	"alpaca":            {"internal/durable"},
	"mtbench":           {"internal/durable", "internal/terminal"},
	"tokenizer":         {},
	"internal/durable":  {},
	"internal/terminal": {"internal/durable"},
	"internal/hub":      {"internal/terminal", "internal/durable"},
	"internal/browser":  {},
	"internal/mpi":      {},
	"internal/testutil": {"bindings"},
	"tools/comments":    {},
	"tools/layering":    {},
	"tools/release":     {},
	"docs":              {},
	"tools/randomgguf":  {"bindings", "model", "vera"}, // its tests train what it writes
}

// withC are the packages that may have cgo, pure those that may not even reach it.
var (
	withC = []string{"bindings", "bindings/onearena", "ggml/..."}
	pure  = []string{"alpaca", "mtbench", "tokenizer"}
)

// testsOnly are what tests are made with, and bindings, whose types testutil's options name.
var testsOnly = []string{"internal/testutil", "internal/browser", "bindings"}

// listed is what `go list -json` says of a package.
type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
	CgoFiles, Deps                     []string
	Standard                           bool
}

func main() {
	broken, err := check()
	if err != nil {
		fmt.Fprintln(os.Stderr, "layering:", err)
		os.Exit(1)
	}
	for _, b := range broken {
		fmt.Fprintln(os.Stderr, "layering:", b)
	}
	if len(broken) > 0 {
		os.Exit(1)
	}
}

// check returns a line for every rule that is broken.
func check() ([]string, error) {
	packages, err := list("./...")
	if err != nil {
		return nil, err
	}
	var broken []string
	for _, p := range packages {
		name := strings.TrimPrefix(p.ImportPath, module)
		rule, known := ruleOf(name)
		if !known {
			broken = append(broken, name+": no rule says what it may import; add one to tools/layering")
			continue
		}
		for _, imported := range p.Imports {
			if refuses(rule, name, imported) {
				broken = append(broken, fmt.Sprintf("%s may not import %s", name, imported))
			}
		}
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			if refuses(slices.Concat(rule, testsOnly), name, imported) {
				broken = append(broken, fmt.Sprintf("tests of %s may not import %s", name, imported))
			}
		}
		if len(p.CgoFiles) > 0 && !within(withC, name) {
			broken = append(broken, fmt.Sprintf("%s has cgo in %s; only bindings calls C", name,
				strings.Join(p.CgoFiles, ", ")))
		}
		if within(pure, name) {
			reached, err := cgoReached(p.Deps)
			if err != nil {
				return nil, err
			}
			for _, r := range reached {
				broken = append(broken, fmt.Sprintf("%s depends on %s, which has cgo", name, r))
			}
		}
	}
	return broken, nil
}

func ruleOf(name string) ([]string, bool) {
	for pattern, rule := range allowed {
		if within([]string{pattern}, name) {
			return rule, true
		}
	}
	return nil, false
}

// refuses says whether a package with that rule may not import a package; those outside the module are nobody's
// business here.
func refuses(rule []string, name, imported string) bool {
	inside, ours := strings.CutPrefix(imported, module)
	return ours && inside != name && !within(rule, inside)
}

func within(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		parent, tree := strings.CutSuffix(pattern, "/...")
		return name == parent || tree && strings.HasPrefix(name, parent+"/")
	})
}

// cgoReached returns those of the packages that have cgo. The standard library has it in places of its own.
func cgoReached(paths []string) ([]string, error) {
	packages, err := list(paths...)
	var reached []string
	for _, p := range packages {
		if len(p.CgoFiles) > 0 && !p.Standard {
			reached = append(reached, p.ImportPath)
		}
	}
	return reached, err
}

func list(patterns ...string) ([]listed, error) {
	fields := "-json=ImportPath,Imports,TestImports,XTestImports,CgoFiles,Deps,Standard"
	out, err := exec.Command("go", append([]string{"list", fields, "--"}, patterns...)...).Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		return nil, fmt.Errorf("go list: %s", failed.Stderr)
	}
	if err != nil {
		return nil, err
	}
	var packages []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		switch err := d.Decode(&p); err {
		case nil:
			packages = append(packages, p)
		case io.EOF:
			return packages, nil
		default:
			return nil, fmt.Errorf("go list: %w", err)
		}
	}
}
