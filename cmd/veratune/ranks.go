package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/internal/mpi"
	"github.com/veratune/veratune/internal/terminal"
	"github.com/veratune/veratune/train"
)

// together trains with the other processes that mpirun has started. Rank 0 speaks for all of them; one that fails alone says why and ends the others.
func (f *finetune) together(c *cli.Context) error {
	world, err := mpi.Start()
	if err != nil {
		return err
	}
	f.ranks = world
	if !c.IsSet("threads") {
		f.engine.options.Threads = world.Processors()
	}
	stderr := c.App.ErrWriter
	if !f.writes() {
		c.App.Writer, c.App.ErrWriter = io.Discard, io.Discard
	}
	err = f.report(c)
	if err != nil && !errors.Is(err, train.ErrInterrupted) && !errors.Is(err, train.ErrDiverged) { // those two come to all
		if f.writes() || !errors.Is(err, context.Canceled) { // which is how others learn that one has failed
			fmt.Fprintf(stderr, "veratune: rank %d: %s%s\n", world.Rank(), terminal.Words(err), remedy(err))
		}
		world.Abort(exitCode(err))
	}
	if ended := world.End(); ended != nil {
		return errors.Join(err, ended)
	}
	if !f.writes() {
		return nil
	}
	return err
}

// writes tells whether this process writes the run folder.
func (f *finetune) writes() bool { return f.ranks == nil || f.ranks.Rank() == 0 }

// size is the number of processes that train.
func (f *finetune) size() int {
	if f.ranks == nil {
		return 1
	}
	return f.ranks.Size()
}
