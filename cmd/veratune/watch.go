package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/train"
	"github.com/veratune/veratune/watch"
)

func watchCommand() *cli.Command {
	var listen string
	var html output
	return &cli.Command{
		Name:      "watch",
		Usage:     "show runs in the browser while they train, or as one HTML file",
		ArgsUsage: "RUN…",
		Description: "A folder of runs or a sweep stands for the runs in it. Serves a page with losses, learning " +
			"rate, speed, memory and the norm of the gradient step by step, and with the norms of every layer's " +
			"vectors and the sample answers\n" +
			"(alpaca --sample) at the evaluations. It follows runs that go on, are resumed or are started anew, " +
			"until Ctrl-C. Whoever reaches the address sees the page.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Usage: "`ADDRESS` to serve the page at, which only this machine reaches " +
				"by default; port 0 takes a free one", Value: "127.0.0.1:8372", Destination: &listen},
			&cli.StringFlag{Name: "html", Usage: "write the page as it is now into `FILE`, which holds all it needs, " +
				"and serve nothing", Destination: &html.path},
			html.overwriteFlag(),
		},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usageError{errors.New("watch takes one run folder or more, or a folder of runs")}
			}
			folders, err := runFolders(c)
			if err != nil {
				return err
			}
			if _, port, err := net.SplitHostPort(listen); err != nil || port == "" {
				return usageError{fmt.Errorf("listen %s: want an address and a port, such as 127.0.0.1:8372", listen)}
			}
			if err := html.check(c); err != nil {
				return err
			}
			if html.path != "" {
				return writeRuns(html, folders)
			}
			return serveRuns(c, listen, folders)
		},
	}
}

// writeRuns writes the page.
func writeRuns(html output, folders []string) error {
	var page bytes.Buffer
	if err := watch.Write(&page, folders); err != nil {
		return err
	}
	if err := html.write(page.Bytes()); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

func serveRuns(c *cli.Context, address string, folders []string) error {
	for _, path := range folders {
		if _, err := train.ReadRun(path); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("the page can't be served: %w; another address can be given with --listen", err)
	}
	fmt.Fprintf(c.App.Writer, "http://%s/ (Ctrl-C ends it)\n", l.Addr())
	return watch.Serve(c.Context, l, folders)
}
