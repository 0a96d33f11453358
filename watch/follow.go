package watch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/veratune/veratune/internal/durable"
	"github.com/veratune/veratune/train"
)

// news is what the page is told of a run: all of it, where Begin is not nil, or the records since it was told last.
type news struct {
	Run     int            `json:"run"` // place on the command line, from 0
	Begin   *beginning     `json:"begin,omitempty"`
	Records []train.Record `json:"records"`
	Written int64          `json:"written"`           // when the newest line was, in milliseconds since 1970
	Trouble string         `json:"trouble,omitempty"` // why the run can't be read; all else is as before
}

// beginning is what is told once of a run.
type beginning struct {
	Name     string            `json:"name"`
	Settings map[string]string `json:"settings"`
	Finished bool              `json:"finished"`
}

// follower reads a run while it may be going on.
type follower struct {
	run     int
	path    string
	begun   bool
	metrics *os.File // held open, so that no other file is mistaken for it
	offset  int64    // of what has been read
	adapter string   // stamp of the finished run's
}

// next gives what is new, and nil where nothing is. A run that was resumed, started anew or has become finished is told
// from its beginning.
func (f *follower) next() (*news, error) {
	adapter := stamp(filepath.Join(f.path, train.AdapterFile))
	if !f.begun || f.replaced() || adapter != f.adapter {
		return f.begin(adapter)
	}
	n, err := f.read()
	if err != nil || len(n.Records) == 0 {
		return nil, err
	}
	return n, nil
}

// replaced tells whether there is another metrics file than the one that is being read, or less of it. One that is away
// is about to come back.
func (f *follower) replaced() bool {
	now, err := os.Stat(f.place())
	if err != nil {
		return false
	}
	if f.metrics == nil {
		return true
	}
	read, err := f.metrics.Stat()
	return err != nil || !os.SameFile(now, read) || now.Size() < f.offset
}

func (f *follower) begin(adapter string) (*news, error) {
	report, err := train.ReadRun(f.path)
	if err != nil {
		return nil, err
	}
	f.close()
	f.begun, f.offset, f.adapter = true, 0, adapter
	f.metrics, _, err = durable.Open(f.place())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("run %s: %w", f.path, err)
	}
	n, err := f.read()
	if err != nil {
		return nil, err
	}
	n.Begin = &beginning{Name: f.path, Settings: map[string]string{}, Finished: report.Finished}
	for key := range report.Settings {
		n.Begin.Settings[key] = report.Text(key)
	}
	return n, nil
}

// read takes the lines that are whole and have not been read.
func (f *follower) read() (*news, error) {
	n := &news{Run: f.run, Records: []train.Record{}}
	if f.metrics == nil {
		return n, nil
	}
	info, err := f.metrics.Stat()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", f.path, err)
	}
	data := make([]byte, max(0, min(info.Size(), train.MaxMetrics)-f.offset))
	read, err := f.metrics.ReadAt(data, f.offset)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("run %s: %w", f.path, err)
	}
	data = data[:bytes.LastIndexByte(data[:read], '\n')+1]
	f.offset += int64(len(data))
	records, _ := train.ReadRecords(data)
	n.Records, n.Written = append(n.Records, records...), info.ModTime().UnixMilli()
	return n, nil
}

func (f *follower) place() string { return filepath.Join(f.path, train.MetricsFile) }

func (f *follower) close() {
	if f.metrics != nil {
		f.metrics.Close()
		f.metrics = nil
	}
}

// stamp changes when a file does; it is "" where there is none.
func stamp(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprint(info.ModTime().UnixNano(), info.Size())
}
