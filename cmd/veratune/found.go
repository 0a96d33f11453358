package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/train"
	"github.com/veratune/veratune/vera"
)

// found gives the adapter that a path stands for: a file or a folder of PEFT itself; of the folder of a run or sweep,
// one that is in it, which is told.
func found(path string, report io.Writer) (string, error) {
	if info, err := os.Stat(path); err != nil || !info.IsDir() || vera.IsPEFT(path) {
		return path, nil // whoever opens it says what is wrong with it
	}
	adapter, which, err := train.FindAdapter(path)
	if err == nil {
		fmt.Fprintf(report, "taking %s (%s)\n", adapter, which)
	}
	return adapter, err
}

// findAdapter is the action of a flag that names an adapter: it puts the path of the adapter in place of that of its
// run.
func findAdapter(path *string) func(*cli.Context, string) error {
	return func(c *cli.Context, _ string) (err error) {
		*path, err = found(*path, c.App.ErrWriter)
		return err
	}
}

// dataFiles are the values of a --data flag, which may be given more than once.
type dataFiles []alpaca.Part

func (d *dataFiles) Set(s string) error {
	p, err := alpaca.ParsePart(s)
	if err == nil {
		*d = append(*d, p)
	}
	return err
}

func (d *dataFiles) String() string {
	var names []string
	for _, p := range *d {
		names = append(names, p.String())
	}
	return strings.Join(names, ", ")
}

// measuredFiles are dataFiles whose rows are measured, each once, so that they have no weights.
type measuredFiles dataFiles

func (m *measuredFiles) Set(s string) error {
	files := dataFiles(*m)
	if err := files.Set(s); err != nil {
		return err
	}
	if files[len(files)-1].Weight != 1 {
		return errors.New("a weight is for training; here, each row is measured once")
	}
	*m = measuredFiles(files)
	return nil
}

func (m *measuredFiles) String() string { return (*dataFiles)(m).String() }

// paths are the names given, and the files that they stand for.
func (d dataFiles) paths() (list []string) {
	files, _, _ := alpaca.Find(d) // what is wrong with a name is told by those who read it
	for _, p := range slices.Concat(d, files) {
		list = append(list, p.Path)
	}
	return list
}

// filesUsage says what a flag or an argument of files of rows takes.
const filesUsage = "JSON, JSONL, CSV or Parquet; also a folder of such files, or a pattern in quotes, \"data/*.jsonl\""

// rowFiles are the files of rows that a command's arguments name.
func rowFiles(c *cli.Context) ([]string, error) {
	if c.NArg() == 0 {
		return nil, usageError{fmt.Errorf("%s takes one file of rows or more, a folder of them, or a pattern",
			strings.TrimPrefix(c.Command.HelpName, "veratune "))}
	}
	var named dataFiles
	for _, path := range c.Args().Slice() {
		named = append(named, alpaca.Part{Path: path, Weight: 1})
	}
	files, err := session.Find(named, reportTo(c.App.ErrWriter))
	paths, infos := make([]string, len(files)), make([]os.FileInfo, len(files))
	for i, f := range files {
		paths[i] = f.Path
		infos[i], _ = os.Stat(f.Path) // whoever opens it says what is wrong with it
		if first := slices.IndexFunc(infos[:i], func(info os.FileInfo) bool {
			return os.SameFile(info, infos[i])
		}); first >= 0 {
			fmt.Fprintf(c.App.ErrWriter, "warning: %s is the same file as %s, so that its rows count twice\n", f.Path,
				paths[first])
		}
	}
	return paths, err
}

// runFolders are the runs that a command's arguments name, or that are in the folders that they name.
func runFolders(c *cli.Context) (runs []string, err error) {
	for _, path := range c.Args().Slice() {
		list, err := train.FindRuns(filepath.Clean(path))
		if err != nil {
			return nil, err
		}
		runs = append(runs, list...)
	}
	return runs, nil
}
