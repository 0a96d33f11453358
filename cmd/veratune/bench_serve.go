package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/dustin/go-humanize"
	gops "github.com/shirou/gopsutil/v4/process"
	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/serve"
	"github.com/veratune/veratune/session"
)

// benchServe holds the options of the bench serve command.
type benchServe struct {
	*engine
	load     serve.Load
	adapters []int
	rank     int
	folder   string
	other    bool // a llama-server is measured
	asJSON   bool
}

// servingLine is one line of what `bench serve --json` prints.
type servingLine struct {
	Adapters int `json:"adapters"`
	Rank     int `json:"rank"`
	serve.Measured
	Memory int64 `json:"memory,omitempty"` // of the process, bytes
}

func benchServeCommand() *cli.Command {
	b := &benchServe{engine: newGenerator(), load: serve.Load{Clients: 16, Requests: 4, Tokens: 64,
		Prompt: "A letter to a friend about the first week in a new town, and what was found there:\n\n"}}
	return &cli.Command{
		Name: "serve",
		Usage: "measure a server of random adapters over HTTP: tokens/s of all clients, seconds to the first token " +
			"and between tokens, against the number of adapters that are asked for in turn",
		Flags: slices.Concat(b.engine.flags(), []cli.Flag{
			b.deviceFlag(),
			&cli.IntSliceFlag{Name: "adapters", Usage: "`NUMBERS` of adapters; 0 is the model alone",
				Value: cli.NewIntSlice(0, 1, 16, 256)},
			&cli.IntFlag{Name: "rank", Usage: "of the adapters", Value: 256, Destination: &b.rank},
			&cli.IntFlag{Name: "clients", Usage: "clients that ask at a time, each again as soon as it is answered",
				Value: b.load.Clients, Destination: &b.load.Clients},
			&cli.IntFlag{Name: "requests", Usage: "requests of each client", Value: b.load.Requests,
				Destination: &b.load.Requests},
			&cli.IntFlag{Name: "tokens", Usage: "longest answer in tokens", Value: b.load.Tokens,
				Destination: &b.load.Tokens},
			&cli.StringFlag{Name: "folder", Usage: "empty `FOLDER` that the adapters are made in and left; left out, a " +
				"temporary one", Destination: &b.folder},
			&cli.StringFlag{Name: "url", Usage: "`URL` of a llama-server that is measured instead; its adapters are " +
				"the LoRAs that it was started with", Destination: &b.load.URL},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line", Destination: &b.asJSON},
		}),
		Action: func(c *cli.Context) error {
			b.adapters = c.IntSlice("adapters")
			if err := errors.Join(noArguments(c), validate(b.validate())); err != nil {
				return err
			}
			if b.load.URL != "" {
				b.other = true
				return b.runOther(c)
			}
			return b.run(c)
		},
	}
}

func (b *benchServe) validate() error {
	for _, n := range b.adapters {
		if n < 0 || n > 1e5 {
			return fmt.Errorf("adapters %d: from 0 to 100000", n)
		}
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"rank", b.rank}, {"clients", b.load.Clients}, {"requests", b.load.Requests}, {"tokens", b.load.Tokens}} {
		if n.value < 1 {
			return fmt.Errorf("%s %d: at least 1", n.name, n.value)
		}
	}
	return b.engine.validate()
}

func (b *benchServe) run(c *cli.Context) (err error) {
	base, err := session.Open(b.Options)
	if err != nil {
		return err
	}
	defer base.Close()
	if b.folder == "" {
		if b.folder, err = os.MkdirTemp("", "veratune-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(b.folder)
	}
	names, err := b.makeAdapters(base, b.folder)
	if err != nil {
		return err
	}
	o := serve.Default()
	o.Name, o.Folder, o.Texts, o.Room, o.Queue = baseName, b.folder, b.load.Clients, 1024, 2*b.load.Clients
	o.AdapterMemory = 1 << 40
	s, err := serve.New(base, o)
	if err != nil {
		return err
	}
	defer s.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(c.Context)
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	defer func() {
		stop()
		err = errors.Join(err, <-served)
	}()
	b.load.URL = "http://" + l.Addr().String()
	return b.measureAll(ctx, c, names)
}

// baseName is what the model is called.
const baseName = "base"

// runOther measures a llama-server, whose requests name LoRAs by number.
func (b *benchServe) runOther(c *cli.Context) error {
	var names []string
	for i := range slices.Max(b.adapters) {
		names = append(names, fmt.Sprint(i))
	}
	return b.measureAll(c.Context, c, names)
}

// loraFields name the LoRA of a request in llama-server's words.
func loraFields(names []string) func(request int) map[string]any {
	return func(request int) map[string]any {
		if len(names) == 0 {
			return nil
		}
		return map[string]any{"lora": []map[string]any{{"id": request % len(names), "scale": 1}}}
	}
}

func (b *benchServe) measureAll(ctx context.Context, c *cli.Context, names []string) error {
	if !b.asJSON {
		fmt.Fprintf(c.App.Writer, "%s, %s, rank %d, %d clients\n%9s %9s %15s %15s %10s\n", b.Engine.Compute,
			model.ISA(), b.rank, b.load.Clients, "adapters", "tokens/s", "first, ms", "between, ms", "memory")
		fmt.Fprintf(c.App.Writer, "%9s %9s %15s %15s\n", "", "", "p50     p99", "p50     p99")
	}
	for _, n := range b.adapters {
		line, err := b.measure(ctx, names[:n])
		if err != nil {
			return err
		}
		if err := b.print(c, line); err != nil {
			return err
		}
	}
	return nil
}

// makeAdapters puts as many adapters into a folder as are asked for at most, and gives their names. Few files have many
// names: each is read and held on its own.
func (b *benchServe) makeAdapters(base *session.Session, folder string) (names []string, err error) {
	a, err := measuredAdapter(b.rank, base.Base())
	if err != nil {
		return nil, err
	}
	const files = 16
	for i := range slices.Max(b.adapters) {
		names = append(names, fmt.Sprintf("adapter-%d", i))
		path := filepath.Join(folder, names[i]+".gguf")
		if i >= files {
			if err := os.Link(filepath.Join(folder, names[i%files]+".gguf"), path); err != nil {
				return nil, err
			}
			continue
		}
		for j := range a.Layers[0].LambdaB {
			a.Layers[0].LambdaB[j] += 0.001 * float32(i)
		}
		if err := a.SaveOutput(path, false); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// measure asks adapters in turn, or the model alone. Each is asked once before, so that its file is read.
func (b *benchServe) measure(ctx context.Context, names []string) (line servingLine, err error) {
	line = servingLine{Adapters: len(names), Rank: b.rank}
	load := b.load
	load.Models = names
	if len(names) == 0 {
		load.Models = []string{baseName}
	}
	if b.other {
		load.Fields = loraFields(names)
	}
	warm := load
	warm.Prompt, warm.Tokens, warm.Requests = "", 2, (len(load.Models)+load.Clients-1)/load.Clients
	if _, err := warm.Run(ctx); err != nil {
		return line, err
	}
	if line.Measured, err = load.Run(ctx); err != nil {
		return line, err
	}
	if b.other {
		return line, nil
	}
	p, err := gops.NewProcess(int32(os.Getpid()))
	if err != nil {
		return line, err
	}
	memory, err := p.MemoryInfo()
	if err != nil {
		return line, err
	}
	line.Memory = int64(memory.RSS)
	return line, nil
}

func (b *benchServe) print(c *cli.Context, l servingLine) error {
	if b.asJSON {
		return json.NewEncoder(c.App.Writer).Encode(l)
	}
	_, err := fmt.Fprintf(c.App.Writer, "%9d %9.1f %7.0f %7.0f %7.1f %7.1f %10s\n", l.Adapters, l.TokensPerSecond,
		1000*l.First.P50, 1000*l.First.P99, 1000*l.Between.P50, 1000*l.Between.P99,
		humanize.IBytes(uint64(l.Memory)))
	return err
}
