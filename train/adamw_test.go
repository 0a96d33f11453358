package train

import (
	"math"
	"testing"
)

// The values are those of torch.optim.AdamW (2.15, on the CPU). Its kernels fuse some multiplications with additions,
// so that single roundings differ: 1e-6 is 8 to 16 units in the last place.
func TestAdamWIsPyTorchs(t *testing.T) {
	grads := [][]float32{{0.5, -0.25, 0, 3e-5, -7}, {0.125, -0.75, 0, -2e-5, 4}, {-0.3, 0.1, 1e-3, 1e-5, 0.7},
		{0.01, 0.2, -2e-3, 0, -0.07}}
	rates := []float64{4e-3, 3e-3, 1e-3, 5e-4}
	for _, c := range []struct {
		decay  float64
		params [][]uint32
	}{
		{0, [][]uint32{
			{0x3f7ef9db, 0xbdc49ba6, 0x00000000, 0x3dc49c59, 0x405374bc},
			{0x3f7e568e, 0xbdbef81a, 0x00000000, 0x3dc3b920, 0x40537f2c},
			{0x3f7e4746, 0xbdbdb125, 0xba27754f, 0x3dc3272c, 0x405380f2},
			{0x3f7e40b2, 0xbdbd5464, 0xba01fbfb, 0x3dc2eb66, 0x405381b6},
		}},
		{0.1, [][]uint32{
			{0x3f7edfa4, 0xbdc486ad, 0x00000000, 0x3dc48760, 0x40535f1b},
			{0x3f7e28c4, 0xbdbed40a, 0x00000000, 0x3dc3950f, 0x4053594f},
			{0x3f7e12fa, 0xbdbd8832, 0xba27754f, 0x3dc2fe19, 0x405355ac},
			{0x3f7e0925, 0xbdbd2904, 0xba01f9d6, 0x3dc2bfd4, 0x405353bb},
		}},
	} {
		config := Default()
		config.WeightDecay = c.decay
		o := NewAdamW(5, config)
		params := []float32{1, -0.1, 0, 0.1, 3.3}
		for step, grad := range grads {
			o.Update(params, grad, rates[step])
			compare(t, "params", params, c.params[step])
		}
		compare(t, "m", o.M, []uint32{0x3ca88ce7, 0xbd4cb297, 0xb8e6afcf, 0x35c4e5bd, 0xbe056d5e})
		compare(t, "v", o.V, []uint32{0x39ba0bc6, 0x3a3099ca, 0x31abc3ad, 0x2bc486b9, 0x3d85c42d})
	}
}

// compare takes the wanted values as bits.
func compare(t *testing.T, what string, got []float32, want []uint32) {
	t.Helper()
	for i := range want {
		w := float64(math.Float32frombits(want[i]))
		if !(math.Abs(float64(got[i])-w) <= 1e-6*math.Abs(w)) {
			t.Errorf("%s[%d] is %v, PyTorch's is %v", what, i, got[i], w)
		}
	}
}

// In the first step m/(1-β1) = g and v/(1-β2) = g², so that every parameter with a gradient moves by the learning rate
// against its sign.
func TestAdamWFirstStep(t *testing.T) {
	params := []float32{1, 1, 1}
	NewAdamW(3, Default()).Update(params, []float32{1e-3, -50, 0}, 0.25)
	for i, want := range []float64{0.75, 1.25, 1} {
		// eps over the smaller gradient is 1e-5.
		if math.Abs(float64(params[i])-want) > 1e-5 {
			t.Errorf("parameter %d is %v, want %v", i, params[i], want)
		}
	}
}
