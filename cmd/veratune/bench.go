package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/finetune"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/train"
	"github.com/veratune/veratune/vera"
)

// benchTrain holds the options of the bench train command.
type benchTrain struct {
	*engine
	data   alpaca.Options
	train  train.Config
	files  dataFiles
	rows   int
	rank   int
	method string
	asJSON bool
}

func benchCommand() *cli.Command {
	return &cli.Command{Name: "bench", Usage: "measure speed and memory",
		Subcommands: []*cli.Command{benchTrainCommand(), benchGenerateCommand(), benchServeCommand(),
			benchKernelsCommand()}}
}

func benchTrainCommand() *cli.Command {
	b := &benchTrain{engine: newTrainer(), data: alpaca.Default(), train: train.Default()}
	return &cli.Command{
		Name:  "train",
		Usage: "measure whole training steps on real rows; the first step is not counted",
		Flags: slices.Concat(b.engine.flags(), dataFlags(&b.data), []cli.Flag{
			&cli.GenericFlag{Name: "data", Usage: "`FILE` of rows: " + filesUsage +
				"; left out, the built-in starter set", Value: &b.files},
			&cli.IntFlag{Name: "rows", Usage: "rows to use, from the first; 0 uses all", Value: 64,
				Destination: &b.rows},
			&cli.IntFlag{Name: "accumulation", Usage: "batches in a step", Value: b.train.Accumulation,
				Destination: &b.train.Accumulation},
			b.deviceFlag(),
			b.planFlag(),
			b.memoryFlag(),
			methodFlag(&b.method),
			&cli.IntFlag{Name: "rank", Usage: rankUsage, DefaultText: rankDefault(), Destination: &b.rank},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object", Destination: &b.asJSON},
		}),
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if b.rows < 0 {
				return usageError{fmt.Errorf("rows %d: 0 or more", b.rows)}
			}
			config := finetune.Default(vera.Method(b.method)).Adapter
			if c.IsSet("rank") {
				config.Rank = b.rank
			}
			if err := validate(config.Validate(), b.validate(), b.data.Validate(), b.train.Validate()); err != nil {
				return err
			}
			return b.run(c, config)
		},
	}
}

func (b *benchTrain) run(c *cli.Context, config vera.Config) error {
	s, err := session.Open(b.Options)
	if err != nil {
		return err
	}
	defer s.Close()
	b.data.Context = c.Context
	d, err := s.Rows(b.files, b.data, reportTo(c.App.ErrWriter))
	if err != nil {
		return err
	}
	if b.rows > 0 {
		d.Cut(b.rows)
	}
	adapter, err := vera.New(config, s.Base())
	if err != nil {
		return usageError{err}
	}
	if err := s.Attach(adapter); err != nil {
		return err
	}
	learner, err := finetune.Engine(s.Model, b.train)
	if err != nil {
		return err
	}
	speed, err := train.Measure(c.Context, b.train, learner, adapter.Params, d.Source(b.data), s.Forget)
	if err != nil {
		return err
	}
	shares := s.Times()
	other := 1.0
	for op := range shares {
		shares[op] /= speed.Seconds
		other -= shares[op]
	}
	shares["other"] = other
	var rate, ofPeak float64
	if s.Device().Host {
		operations, least, err := s.Products()
		if err != nil {
			return err
		}
		rate, ofPeak = operations/speed.Seconds/1e9, least/speed.Seconds
	}
	if b.asJSON {
		return json.NewEncoder(c.App.Writer).Encode(struct {
			train.Speed
			// bytes in use there afterwards, by all programs; 0 where the CPU computes
			Device  int64              `json:"device_memory"`
			ISA     string             `json:"isa"`
			Compute model.Compute      `json:"compute"`
			Shares  map[string]float64 `json:"shares"`  // of the time, for each kind of operation
			Rate    float64            `json:"gflops"`  // of products in all of the time; 0 where a device computes
			OfPeak  float64            `json:"of_peak"` // of what the processor reaches on registers alone
		}{speed, s.DeviceMemory(), model.ISA(), s.Compute(), shares, rate, ofPeak})
	}
	memory, processor := fmt.Sprintf("peak memory %.2f GiB", speed.PeakGiB), model.ISA()
	if device := s.Device(); !device.Host {
		memory, processor = fmt.Sprintf("%.2f GiB of the device's memory in use", float64(s.DeviceMemory())/(1<<30)),
			device.Name
	}
	fmt.Fprintf(c.App.Writer, "%.1f tokens/s, %.3f samples/s over %d steps of %d tokens; %s; %s, %s\n",
		speed.TokensPerSecond, speed.SamplesPerSecond, speed.Steps, speed.Tokens, memory, s.Compute(), processor)
	if rate > 0 {
		fmt.Fprintf(c.App.Writer, "%.0f GFLOP/s in products, %.0f%% of the processor's own rate\n", rate, 100*ofPeak)
	}
	if len(shares) == 1 {
		return nil // the device does not tell
	}
	for _, op := range slices.SortedFunc(maps.Keys(shares), func(a, b string) int {
		return cmp.Compare(shares[b], shares[a])
	}) {
		fmt.Fprintf(c.App.Writer, "  %5.1f%%  %s\n", 100*shares[op], op)
	}
	return nil
}

func benchKernelsCommand() *cli.Command {
	e := newTrainer()
	var tokens int
	var asJSON bool
	return &cli.Command{
		Name: "kernels",
		Usage: "measure the products of training on each kind of matrix of a model, beside the same built of stock " +
			"ggml operations",
		Flags: append(append([]cli.Flag{e.modelFlag()}, e.computeFlags()...),
			&cli.IntFlag{Name: "tokens", Usage: "tokens that are computed together", Value: 1024, Destination: &tokens},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line", Destination: &asJSON},
		),
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if err := validate(e.validate()); err != nil {
				return err
			}
			if tokens < 1 {
				return usageError{fmt.Errorf("tokens %d: at least 1", tokens)}
			}
			m, err := model.Open(e.Model, e.Engine)
			if err != nil {
				return err
			}
			defer m.Close()
			out := c.App.Writer
			if asJSON {
				lines := json.NewEncoder(out)
				return m.Kernels(tokens, func(s model.Speed) { lines.Encode(s) })
			}
			fmt.Fprintf(out, "%s, %s, %d threads, %d tokens; GFLOP/s\n", m.Compute(), model.ISA(),
				e.Engine.Threads, tokens)
			fmt.Fprintf(out, "%-16s %-8s %-6s %6s %6s %9s %9s %9s\n", "operation", "numbers", "weight", "in", "out",
				"fused", "composed", "of peak")
			return m.Kernels(tokens, func(s model.Speed) {
				composed := "-"
				if s.Composed > 0 {
					composed = fmt.Sprintf("%.0f", s.Composed)
				}
				fmt.Fprintf(out, "%-16s %-8s %-6s %6d %6d %9.0f %9s %8.0f%%\n", s.Op, s.Numbers, s.Weight, s.In,
					s.Out, s.Fused, composed, 100*s.Fused/s.Peak)
			})
		},
	}
}
