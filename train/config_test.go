package train

import (
	"math"
	"strings"
	"testing"
)

func TestDefaultIsValid(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestValidateNamesTheValueAndWhatIsAllowed(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.LR = 0 }, "lr 0: want a number above 0"},
		{func(c *Config) { c.LR = math.NaN() }, "lr NaN"},
		{func(c *Config) { c.LR = math.Inf(1) }, "lr +Inf"},
		{func(c *Config) { c.Schedule = "step" }, `schedule "step": want one of cosine, linear, constant`},
		{func(c *Config) { c.WarmupRatio = 1.5 }, "warmup-ratio 1.5: want a number from 0 to 1"},
		{func(c *Config) { c.WarmupRatio = math.NaN() }, "warmup-ratio NaN"},
		{func(c *Config) { c.Accumulation = 0 }, "accumulation 0"},
		{func(c *Config) { c.Epochs = 0 }, "epochs 0"},
		{func(c *Config) { c.Epochs = -0.5 }, "epochs -0.5"},
		{func(c *Config) { c.Epochs = math.NaN() }, "epochs NaN"},
		{func(c *Config) { c.Epochs = 1e300 }, "epochs 1e+300"},
		{func(c *Config) { c.Steps = -1 }, "steps -1"},
		{func(c *Config) { c.WeightDecay = -0.1 }, "weight-decay -0.1"},
		{func(c *Config) { c.WeightDecay = 1000 }, "weight-decay 1000"},
		{func(c *Config) { c.Beta1 = 1 }, "beta1 1"},
		{func(c *Config) { c.Beta2 = math.NaN() }, "beta2 NaN"},
		{func(c *Config) { c.Eps = 0 }, "eps 0"},
		{func(c *Config) { c.Eps = 1e-60 }, "eps 1e-60"},
		{func(c *Config) { c.Clip = -1 }, "clip -1"},
		{func(c *Config) { c.Patience = -1 }, "patience -1"},
		{func(c *Config) { c.Patience, c.EvalEvery = 1, Interval{} }, "patience: needs evaluations"},
		{func(c *Config) { c.SaveEvery = -1 }, "save-every -1"},
		{func(c *Config) { c.Keep = 1 }, "keep 1: want at least 2"},
	} {
		config := Default()
		c.change(&config)
		if err := config.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("got %v, want %s …", err, c.want)
		}
	}
}
