package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/serve"
)

// jobFlags are the flags of training for clients.
func (o *serveOptions) jobFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "jobs", Usage: "adapters that are trained at a time for clients, who upload rows to " +
			"/v1/files and ask for /v1/fine_tuning/jobs; 0 for none, and no such paths",
			DefaultText: fmt.Sprintf("%d with --adapters, where they are put; else 0", o.jobs.AtOnce),
			Destination: &o.jobs.AtOnce, Value: o.jobs.AtOnce},
		&cli.StringFlag{Name: "state", Usage: "`FOLDER` of uploaded files and of jobs, which no other server may use",
			DefaultText: "that of --adapters with .state behind it", Destination: &o.jobs.State},
		&cli.IntFlag{Name: "max-files", Usage: "most uploaded files", Value: o.jobs.MaxFiles,
			Destination: &o.jobs.MaxFiles},
		&cli.GenericFlag{Name: "max-file", Usage: "largest `SIZE` of an uploaded file", Value: &size{&o.jobs.MaxFile}},
	}
}

// prepareJobs fills in what follows from other options.
func (o *serveOptions) prepareJobs(c *cli.Context) error {
	j := &o.jobs
	switch {
	case j.AtOnce < 0:
		return fmt.Errorf("jobs %d: 0 or more", j.AtOnce)
	case o.Folder == "" && c.IsSet("jobs") && j.AtOnce > 0:
		return errors.New("jobs: need --adapters, the folder that finished adapters are put into")
	case o.Folder == "":
		j.AtOnce = 0
	}
	if j.AtOnce == 0 {
		return nil
	}
	if j.State == "" {
		j.State = filepath.Clean(o.Folder) + ".state"
	}
	j.Adapters, j.Base, j.Secrets = o.Folder, o.Name, []string{o.keyEnv}
	j.Flags, j.TrainFlags = []string{"--model=" + o.Model}, nil
	for _, flag := range c.Command.Flags {
		name := flag.Names()[0]
		if !c.IsSet(name) {
			continue
		}
		switch {
		case slices.Contains([]string{"pre-tokenizer", "template", "date"}, name):
			j.Flags = append(j.Flags, fmt.Sprintf("--%s=%v", name, flagValue(c, flag)))
		case name == "template-option":
			for _, word := range flagValue(c, flag).([]string) {
				j.Flags = append(j.Flags, "--template-option="+word)
			}
		case name == "device" || name == "threads":
			j.TrainFlags = append(j.TrainFlags, fmt.Sprintf("--%s=%v", name, flagValue(c, flag)))
		}
	}
	return j.Validate()
}

// openJobs opens the jobs; nil where there are none.
func (o *serveOptions) openJobs() (*serve.Jobs, error) {
	if o.jobs.AtOnce == 0 {
		return nil, nil
	}
	if _, err := os.Stat(o.Folder); err != nil {
		return nil, fmt.Errorf("adapters: %w", err)
	}
	var err error
	if o.jobs.Program, err = os.Executable(); err != nil {
		return nil, err
	}
	o.jobs.Log = o.Log
	j, err := serve.OpenJobs(o.jobs)
	if err != nil {
		err = fmt.Errorf("%w; --state names another folder, --jobs 0 does without", err)
	}
	return j, err
}
