// Command release packs the programs that `make release` built: archives with everything that goes with a program,
// their checksums, and what package managers need to install them. The same commit gives the same bytes.
package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// job is a release to be packed.
type job struct {
	version  string    // v0.1.0
	url      string    // of the folder that dist/ will be in; "" where it is not known
	built    string    // folder of the programs, OS-ARCH/veratune
	runnable string    // a program that this machine can run
	runtime  string    // the compiler's libraries, with their licences
	dist     string    // folder to write to
	date     time.Time // of the commit
}

// file is one of an archive.
type file struct {
	name    string
	content []byte
	program bool
}

func main() {
	var j job
	flag.StringVar(&j.version, "version", "", "version, such as v0.1.0")
	flag.StringVar(&j.url, "url", "", "address of the folder that dist/ will be in; without it no installer is written")
	flag.StringVar(&j.built, "built", "build/release", "folder of the programs, as OS-ARCH/veratune")
	flag.StringVar(&j.runnable, "run", "", "program that this machine can run, for the completions")
	flag.StringVar(&j.runtime, "runtime", "", "folder of the compiler's libraries, with their licences")
	flag.StringVar(&j.dist, "dist", "dist", "folder to write to")
	seconds := flag.Int64("date", 0, "of the commit, in seconds since 1970")
	flag.Parse()
	j.date = time.Unix(*seconds, 0).UTC()
	if err := j.pack(flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// pack writes dist/ anew, with an archive for each target, OS-ARCH.
func (j job) pack(targets []string) error {
	if j.version == "" || len(targets) == 0 {
		return fmt.Errorf("-version and a target, such as linux-amd64, are needed")
	}
	if err := os.RemoveAll(j.dist); err != nil {
		return err
	}
	if err := os.MkdirAll(j.dist, 0o777); err != nil {
		return err
	}
	shared, err := j.documents()
	if err != nil {
		return err
	}
	sums := map[string]string{}
	for _, target := range targets {
		files, err := j.contents(target, shared)
		if err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
		folder := fmt.Sprintf("veratune-%s-%s", j.version, target)
		name, archive := folder+".tar.gz", tarball
		if strings.HasPrefix(target, "windows-") {
			name, archive = folder+".zip", zipped
		}
		packed, err := archive(folder, files, j.date)
		if err != nil {
			return err
		}
		if sums[name], err = j.write(name, packed); err != nil {
			return err
		}
	}
	if err := j.installers(sums); err != nil {
		return err
	}
	var list strings.Builder
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		fmt.Fprintf(&list, "%s  %s\n", sums[name], name)
	}
	_, err = j.write("SHA256SUMS", []byte(list.String()))
	return err
}

// write gives the SHA-256 of what it wrote.
func (j job) write(name string, content []byte) (string, error) {
	return sum256(content), os.WriteFile(filepath.Join(j.dist, name), content, 0o666)
}

func sum256(content []byte) string { return fmt.Sprintf("%x", sha256.Sum256(content)) }

// documents are the files that are the same in all archives.
func (j job) documents() ([]file, error) {
	var files []file
	for name, from := range map[string]string{"LICENSE": "LICENSE", "CHANGELOG.md": "CHANGELOG.md",
		"man/man1/veratune.1": "docs/veratune.1", "docs/cli.md": "docs/cli.md"} {
		content, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		files = append(files, file{name: name, content: content})
	}
	for shell, name := range map[string]string{"bash": "veratune.bash", "zsh": "_veratune", "fish": "veratune.fish"} {
		var errs bytes.Buffer
		c := exec.Command(j.runnable, "completion", shell)
		c.Stderr = &errs
		content, err := c.Output()
		if err != nil {
			return nil, fmt.Errorf("%s completion %s: %w: %s", j.runnable, shell, err, &errs)
		}
		files = append(files, file{name: path.Join("completions", name), content: content})
	}
	return files, nil
}

// contents are the files of a target's archive, sorted.
func (j job) contents(target string, shared []file) ([]file, error) {
	name := "veratune"
	if strings.HasPrefix(target, "windows-") {
		name += ".exe"
	}
	from := filepath.Join(j.built, target, name)
	program, err := os.ReadFile(from)
	if err != nil {
		return nil, err
	}
	parts, err := componentsOf(from)
	if err != nil {
		return nil, err
	}
	licences, err := licences(parts, j.runtime)
	if err != nil {
		return nil, err
	}
	bill, err := billOfMaterials(j.version, target, program, parts, j.runtime, j.date)
	if err != nil {
		return nil, err
	}
	files := slices.Concat(shared, licences, []file{{name: name, content: program, program: true},
		{name: "sbom.spdx.json", content: bill}})
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.name, b.name) })
	return files, nil
}
