package serve

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are what Prometheus reads. No label may have values without bound, as names of adapters would be.
type metrics struct {
	handler      http.Handler
	requests     *prometheus.CounterVec
	duration     *prometheus.HistogramVec
	promptTokens prometheus.Counter
	cachedTokens prometheus.Counter
	tokens       prometheus.Counter
	firstToken   prometheus.Histogram
	betweenToken prometheus.Histogram
	placed       prometheus.Gauge
	placedBytes  prometheus.Gauge
	loads        *prometheus.CounterVec
	evictions    prometheus.Counter
}

// newMetrics makes the metrics of a server.
func newMetrics(o Options, p *places) *metrics {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "veratune_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "veratune_" + name, Help: help})
	}
	m := &metrics{
		handler: promhttp.HandlerFor(r, promhttp.HandlerOpts{}),
		requests: f.NewCounterVec(prometheus.CounterOpts{Name: "veratune_requests_total",
			Help: "Requests by route and status; 499 is a client that left."}, []string{"route", "status"}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{Name: "veratune_request_seconds",
			Help: "Time from a request's head to the end of its answer.", Buckets: seconds(0.001, 600)},
			[]string{"route"}),
		promptTokens: counter("prompt_tokens_total", "Tokens of prompts."),
		cachedTokens: counter("cached_tokens_total", "Tokens of prompts that were not computed again."),
		tokens:       counter("answer_tokens_total", "Tokens of answers."),
		firstToken: f.NewHistogram(prometheus.HistogramOpts{Name: "veratune_first_token_seconds",
			Help: "Time from when an answer is asked for to its first token.", Buckets: seconds(0.001, 600)}),
		betweenToken: f.NewHistogram(prometheus.HistogramOpts{Name: "veratune_between_tokens_seconds",
			Help: "Time between two tokens of an answer.", Buckets: seconds(0.0001, 10)}),
		placed:      gauge("adapters", "Adapters in memory."),
		placedBytes: gauge("adapter_bytes", "Memory of adapters."),
		loads: f.NewCounterVec(prometheus.CounterOpts{Name: "veratune_adapter_loads_total",
			Help: "Adapters that were read, by whether they could be."}, []string{"result"}),
		evictions: counter("adapter_evictions_total", "Adapters that were dropped for others."),
	}
	gauge("places", "Answers that can be made at a time.").Set(float64(o.Texts))
	gauge("adapter_bytes_limit", "Memory that adapters may have.").Set(float64(o.AdapterMemory))
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "veratune_answers", Help: "Answers that wait or are being made."},
		func() float64 { return float64(p.all.Load()) })
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "veratune_queue", Help: "Answers that wait for their first token."},
		func() float64 { return float64(p.waiting.Load()) })
	return m
}

// seconds are buckets from one time to another, three for each factor of ten.
func seconds(from, to float64) (list []float64) {
	for x := from; x <= to; x *= 10 {
		for _, factor := range []float64{1, 2, 5} {
			if x*factor <= to {
				list = append(list, x*factor)
			}
		}
	}
	return list
}

func (m *metrics) serve(w http.ResponseWriter, r *http.Request) error {
	m.handler.ServeHTTP(w, r)
	return nil
}

// request counts one, with its route's pattern.
func (m *metrics) request(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.duration.WithLabelValues(route).Observe(took.Seconds())
}

// adapters counts adapters that are placed more, or fewer, and says what all take.
func (m *metrics) adapters(more, bytes int64) {
	m.placed.Add(float64(more))
	m.placedBytes.Set(float64(bytes))
}

// load counts an attempt to read an adapter.
func (m *metrics) load(err error) {
	result := "read"
	if err != nil {
		result = "failed"
	}
	m.loads.WithLabelValues(result).Inc()
}

// pace measures the times of an answer's tokens.
type pace struct {
	m      *metrics
	places *places
	last   time.Time
	begun  bool
}

// begin is called when an answer is asked for, and end after it.
func (m *metrics) begin(p *places) *pace {
	p.waiting.Add(1)
	return &pace{m: m, places: p, last: time.Now()}
}

// token is called for each token.
func (p *pace) token() {
	now := time.Now()
	if took := now.Sub(p.last).Seconds(); p.begun {
		p.m.betweenToken.Observe(took)
	} else {
		p.m.firstToken.Observe(took)
		p.begun = true
		p.places.waiting.Add(-1)
	}
	p.last = now
	p.m.tokens.Inc()
}

func (p *pace) end() {
	if !p.begun {
		p.places.waiting.Add(-1)
	}
}
