package train

import "testing"

func FuzzReadRecords(f *testing.F) {
	for _, text := range []string{"", "{\"step\":1,\"loss\":2}\n", "{\"step\":1,\"eval_loss\":1e400}\n",
		"null\n{}\n[]\n\n",
		"{\"step\":1,\"norms\":{\"layers\":[\"a\"],\"grad\":{\"b\":[1e-5]},\"value\":{\"b\":[null]}}}\n",
		"{\"step\":1,\"norms\":{\"layers\":[],\"grad\":{\"b\":[1]}}}\n", "{\"step\":3,\"loss\":1}"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		records, lines := ReadRecords(data)
		if len(records) != len(lines) {
			t.Fatalf("%d records of %d lines", len(records), len(lines))
		}
		for _, r := range records {
			if r.Norms != nil && len(r.Norms.Grad["b"]) != len(r.Norms.Layers) && r.Norms.Grad["b"] != nil {
				t.Errorf("norms of %d of %d layers", len(r.Norms.Grad["b"]), len(r.Norms.Layers))
			}
		}
		var losses Losses
		for _, r := range records {
			losses.Add(r)
		}
		if _, err := chart(losses); err != nil {
			t.Errorf("chart: %v", err)
		}
	})
}
