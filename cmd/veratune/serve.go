package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/serve"
	"github.com/veratune/veratune/session"
)

// serveOptions holds the options of the serve command.
type serveOptions struct {
	*engine
	serve.Options
	jobs    serve.JobOptions
	listen  string
	keyEnv  string
	origins texts
}

// serveKeyEnv is the variable that holds the key which requests must show.
const serveKeyEnv = "VERATUNE_API_KEY"

func serveCommand() *cli.Command {
	o := &serveOptions{engine: newGenerator(), Options: serve.Default(), jobs: serve.DefaultJobs()}
	o.Adapters = map[string]string{}
	return &cli.Command{
		Name:  "serve",
		Usage: "answer OpenAI's API, with a model and any number of adapters of it",
		Description: "Programs that speak to OpenAI's API name an adapter as the model. A file that appears in the " +
			"folder of adapters, changes or goes is seen at the next request; answers that are being made keep the " +
			"adapter that they began with. Serves until Ctrl-C, which ends open answers. /openapi.json describes all " +
			"paths.",
		Flags: slices.Concat(o.engine.flags(), []cli.Flag{
			o.deviceFlag(),
			o.forceFlag(),
			&cli.StringFlag{Name: "adapters",
				Usage: "`FOLDER` of adapters: a file NAME.gguf, a folder of PEFT or a run " +
					"folder NAME is the model NAME", Destination: &o.Folder},
			&cli.GenericFlag{Name: "adapter", Aliases: []string{"a"},
				Usage: "one more adapter, as `NAME=FILE`: a file, a " +
					"folder of PEFT, or a run folder. May be given several times",
				Value: &namedFiles{files: o.Adapters}},
			&cli.StringFlag{Name: "name", Usage: "what requests call the model without an adapter",
				DefaultText: "its file's name without .gguf", Destination: &o.Name},
			&cli.StringFlag{Name: "listen",
				Usage: "`ADDRESS` to serve at, which only this machine reaches by default; " +
					"port 0 takes a free one", Value: "127.0.0.1:8080", Destination: &o.listen},
			&cli.StringFlag{Name: "key-env",
				Usage: "`VARIABLE` of the environment that holds the API key which requests " +
					"must show; where it is not set, none is needed", Value: serveKeyEnv, Destination: &o.keyEnv},
			&cli.GenericFlag{Name: "origin", Usage: "`ORIGIN` of pages in browsers that may ask, such as " +
				"https://example.com, or * for all. May be given several times", Value: &o.origins},
			&cli.IntFlag{Name: "parallel", Usage: "answers that are made at a time", Value: o.Texts,
				Destination: &o.Texts},
			&cli.IntFlag{Name: "context", Usage: "tokens of a prompt and its answer that there is room for",
				DefaultText: fmt.Sprintf("the model's, up to %d", defaultRoom), Value: o.Room, Destination: &o.Room},
			&cli.IntFlag{Name: "queue", Usage: "answers that may wait for a place; more are refused", Value: o.Queue,
				Destination: &o.Queue},
			&cli.IntFlag{Name: "max-prompt", Usage: "longest prompt in tokens", DefaultText: "as far as --context goes",
				Destination: &o.MaxPrompt},
			&cli.GenericFlag{Name: "max-body", Usage: "largest `SIZE` of a request", Value: &size{&o.MaxBody}},
			&cli.DurationFlag{Name: "timeout", Usage: "longest time of a request, with its wait", Value: o.Timeout,
				Destination: &o.Timeout},
			&cli.GenericFlag{Name: "adapter-memory",
				Usage: "`SIZE` of the memory for adapters, beside their pairs; those " +
					"that were not used for longest make room for others", Value: &size{&o.AdapterMemory}},
		}, o.jobFlags(), formFlags(&o.Form)),
		Action: func(c *cli.Context) error {
			if err := errors.Join(noArguments(c), validate(o.engine.validate(), o.validate(c))); err != nil {
				return err
			}
			return o.run(c)
		},
	}
}

// validate fills in what follows from other options.
func (o *serveOptions) validate(c *cli.Context) error {
	if o.Name == "" {
		o.Name = strings.TrimSuffix(filepath.Base(o.Model), ".gguf")
	}
	if _, port, err := net.SplitHostPort(o.listen); err != nil || port == "" {
		return fmt.Errorf("listen %s: want an address and a port, such as 127.0.0.1:8080", o.listen)
	}
	if o.Key = strings.TrimSpace(os.Getenv(o.keyEnv)); o.Key == "" && c.IsSet("key-env") {
		return fmt.Errorf("key-env %s: the environment holds no such variable", o.keyEnv)
	}
	o.Origins = o.origins
	return errors.Join(o.Options.Validate(), o.prepareJobs(c))
}

func (o *serveOptions) run(c *cli.Context) error {
	for name, file := range o.Adapters {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("adapter %s: %w", name, err)
		}
	}
	base, err := session.Open(o.engine.Options)
	if err != nil {
		return err
	}
	defer base.Close()
	if c.IsSet("context") && o.Room > base.Context {
		return usageError{fmt.Errorf("context %d: the model's is %d", o.Room, base.Context)}
	}
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("can't listen: %w; another address can be given with --listen", err)
	}
	defer l.Close()
	if a, ok := l.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() && o.Key == "" {
		fmt.Fprintf(c.App.ErrWriter, "warning: whoever reaches %s can use this server: it has no API key; %s "+
			"takes one\n",
			l.Addr(), o.keyEnv)
	}
	o.Log = slog.New(slog.NewTextHandler(c.App.ErrWriter, nil))
	if o.Jobs, err = o.openJobs(); err != nil {
		return err
	}
	if o.Jobs != nil {
		defer o.Jobs.Close()
	}
	s, err := serve.New(base, o.Options)
	if err != nil {
		return err
	}
	defer s.Close()
	if o.Jobs != nil {
		o.Jobs.Start()
	}
	fmt.Fprintf(c.App.Writer, "http://%s/v1 (Ctrl-C ends it)\n", l.Addr())
	return s.Serve(c.Context, l)
}

// namedFiles is a flag of names and files, which may be given several times.
type namedFiles struct{ files map[string]string }

func (n *namedFiles) Set(text string) error {
	name, file, ok := strings.Cut(text, "=")
	switch {
	case !ok || name == "" || file == "":
		return errors.New("want NAME=FILE")
	case n.files[name] != "":
		return fmt.Errorf("the name %s is given twice", name)
	}
	n.files[name] = file
	return nil
}

func (n *namedFiles) String() string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(n.files)) {
		words = append(words, name+"="+n.files[name])
	}
	return strings.Join(words, " ")
}

// size is a flag of a number of bytes.
type size struct{ bytes *int64 }

func (s *size) Set(text string) error {
	n, err := humanize.ParseBytes(text)
	if err != nil || n == 0 || n > math.MaxInt64 {
		return errors.New("want a size such as 6GB or 800MiB")
	}
	*s.bytes = int64(n)
	return nil
}

func (s *size) String() string {
	if s.bytes == nil {
		return ""
	}
	return humanize.IBytes(uint64(*s.bytes))
}
