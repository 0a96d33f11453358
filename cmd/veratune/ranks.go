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

// together trains with the other processes that mpirun has started. Rank 0 speaks for all of them; one that fails alone
// says why and ends the others.
func (f *training) together(c *cli.Context) error {
	world, err := mpi.Start()
	if err != nil {
		return err
	}
	f.o.Group = world
	if !c.IsSet("threads") {
		f.o.Engine.Threads = world.Processors()
	}
	stderr := c.App.ErrWriter
	if world.Rank() != 0 {
		c.App.Writer, c.App.ErrWriter = io.Discard, io.Discard
	}
	err = f.report(c)
	// those two come to all
	if err != nil && !errors.Is(err, train.ErrInterrupted) && !errors.Is(err, train.ErrDiverged) {
		if world.Rank() == 0 || !errors.Is(err, context.Canceled) { // which is how others learn that one has failed
			fmt.Fprintf(stderr, "veratune: rank %d: %s%s\n", world.Rank(), terminal.Words(err), remedy(err))
		}
		world.Abort(exitCode(err))
	}
	if ended := world.End(); ended != nil {
		return errors.Join(err, ended)
	}
	if world.Rank() != 0 {
		return nil
	}
	return err
}
