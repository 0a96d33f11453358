package serve

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// trainer is a program that says what veratune would, and trains in no time: every third job fails.
const trainer = `#!/bin/sh
case "$1" in
data)
	echo '{"rows": 4, "unusable": []}';;
alpaca)
	trap 'exit 130' TERM
	sleep 0.0$(($$ % 5)) & wait $!
	for word; do
		case "$word" in --out=*) out="${word#--out=}";; esac
	done
	if [ $(($$ % 3)) = 0 ]; then
		echo "veratune: no luck" >&2
		exit 1
	fi
	mkdir -p "$out" && cp 'ADAPTER' "$out/adapter.gguf";;
esac
`

// TestJobsStorm has many clients upload, delete, ask for jobs and change them, all at once. Every answer is one that
// the API has, no job is forgotten, and what is there afterwards is there after a restart, too.
func TestJobsStorm(t *testing.T) {
	base := openTiny(t)
	adapter, fake := filepath.Join(t.TempDir(), "adapter.gguf"), filepath.Join(t.TempDir(), "veratune")
	saveAdapter(t, base, adapter, 1, nil, map[string]string{"steps": "1"})
	if err := os.WriteFile(fake, []byte(strings.Replace(trainer, "ADAPTER", adapter, 1)), 0o700); err != nil {
		t.Fatal(err)
	}
	o := DefaultJobs()
	o.State, o.Adapters, o.Base, o.Program, o.AtOnce, o.MaxFiles = t.TempDir(), t.TempDir(), baseName, fake, 3, 20
	before := runtime.NumGoroutine()
	j, err := OpenJobs(o)
	if err != nil {
		t.Fatal(err)
	}
	j.Start()
	server := httptest.NewServer(mount(j.routes))
	const clients, requests = 16, 40
	var all sync.WaitGroup
	for n := range clients {
		all.Go(func() {
			c := &stormClient{t, server.URL + "/v1/", rand.New(rand.NewPCG(uint64(n), 1))}
			for range requests {
				c.request()
			}
		})
	}
	all.Wait()
	server.Close()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		j.mu.Lock()
		busy := j.training
		for _, w := range j.list {
			if w.stop != nil || !w.over() && w.Status != statusPaused {
				busy++
			}
		}
		j.mu.Unlock()
		if busy == 0 {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("%d jobs are left", busy)
		}
	}
	states := map[string]string{}
	count := map[string]int{}
	for id, w := range j.list {
		states[id] = w.Status
		if count[w.Status]++; w.Status == statusSucceeded {
			if _, err := os.Stat(j.served(*w.FineTunedModel)); err != nil {
				t.Error(err)
			}
		}
	}
	t.Log(count)
	files := len(j.files.list)
	if writing := j.files.writing; writing != 0 {
		t.Errorf("%d uploads are left", writing)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	http.DefaultClient.CloseIdleConnections()
	for began := time.Now(); runtime.NumGoroutine() > before && time.Since(began) < 10*time.Second; {
		time.Sleep(10 * time.Millisecond)
	}
	if now := runtime.NumGoroutine(); now > before {
		t.Errorf("%d goroutines, %d before", now, before)
	}
	again, err := OpenJobs(o)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for id, w := range again.list {
		if states[id] != w.Status {
			t.Errorf("%s is %s, and was %s", id, w.Status, states[id])
		}
	}
	if len(again.list) != len(states) || len(again.files.list) != files {
		t.Errorf("%d jobs and %d files, %d and %d before", len(again.list), len(again.files.list), len(states), files)
	}
}

// stormClient makes requests at random.
type stormClient struct {
	*testing.T
	address string
	random  *rand.Rand
}

func (c *stormClient) request() {
	switch c.random.IntN(8) {
	case 0, 1:
		body, kind := uploadForm(c.T, "purpose", "fine-tune", "file=rows.jsonl", chatRows(4))
		c.send("POST", "files", kind, body, 200, 400)
	case 2:
		if id := c.one("files"); id != "" {
			c.send("DELETE", "files/"+id, "", nil, 200, 404)
		}
	case 3, 4:
		if id := c.one("files?purpose=fine-tune"); id != "" {
			c.send("POST", "fine_tuning/jobs", "application/json", strings.NewReader(fmt.Sprintf(
				// 404 where the file was deleted just now
				`{"model": %q, "training_file": %q, "hyperparameters": {"rank": 8}}`, baseName, id)), 200,
				400, 404, 429)
		}
	default:
		if id := c.one("fine_tuning/jobs"); id != "" {
			change := []string{"/cancel", "/pause", "/resume", "/resume"}[c.random.IntN(4)]
			c.send("POST", "fine_tuning/jobs/"+id+change, "", nil, 200, 400)
			c.send("GET", "fine_tuning/jobs/"+id+"/events", "", nil, 200)
			c.send("GET", "fine_tuning/jobs/"+id+"/checkpoints", "", nil, 200)
		}
	}
}

// one is the id of one that a list has.
func (c *stormClient) one(path string) string {
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.Unmarshal(c.send("GET", path, "", nil, 200), &list); err != nil {
		c.Error(err)
	}
	if len(list.Data) == 0 {
		return ""
	}
	return list.Data[c.random.IntN(len(list.Data))].ID
}

func (c *stormClient) send(method, path, kind string, body io.Reader, allowed ...int) []byte {
	request, err := http.NewRequest(method, c.address+path, body)
	if err != nil {
		c.Error(err)
		return nil
	}
	request.Header.Set("Content-Type", kind)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		c.Error(err)
		return nil
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	for _, status := range allowed {
		if response.StatusCode == status && err == nil {
			return text
		}
	}
	c.Errorf("%s %s: %d %s, %v", method, path, response.StatusCode, text, err)
	return nil
}
