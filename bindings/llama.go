package bindings

// #include <stdlib.h>
// #include "guard.h"
import "C"

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"
)

// Llama is a model that llama.cpp itself computes: what users of a file will get. It is not safe for concurrent use.
type Llama struct {
	LlamaOptions
	device  *C.struct_ggml_backend_device // nil for the CPU
	path    string
	model   *C.struct_llama_model
	context *C.struct_llama_context
	lora    *C.struct_llama_adapter_lora // nil for none
	vocab   int
	past    int // tokens held
}

// LlamaOptions are the sizes that llama.cpp is asked for.
type LlamaOptions struct {
	Context int // tokens that there is room for
	Batch   int // tokens that are computed together
	Threads int
	Device  string // that has all layers, keys and values; "" is the CPU
}

// Validate says what is allowed where an option is not.
func (o LlamaOptions) Validate() error {
	switch {
	case o.Context < 1 || o.Context > 1<<20:
		return fmt.Errorf("context %d: from 1 to %d tokens", o.Context, 1<<20)
	case o.Batch < 1 || o.Batch > 1<<14:
		return fmt.Errorf("batch %d: from 1 to %d tokens", o.Batch, 1<<14)
	case o.Threads < 1 || o.Threads > C.VT_MAX_THREADS:
		return fmt.Errorf("threads %d: from 1 to %d", o.Threads, C.VT_MAX_THREADS)
	}
	return nil
}

// OpenLlama maps a GGUF file, with llama.cpp's defaults in all that the options do not say: keys and values in float16,
// activations of quantised products in 8 bits. The file must be a whole Llama, as model.Open finds; llama.cpp may end
// the process where it isn't.
func OpenLlama(path string, o LlamaOptions) (*Llama, error) {
	defer attend()()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	l := &Llama{LlamaOptions: o, path: path}
	if o.Device != "" && o.Device != CPU && o.Device != Composed {
		d, err := FindDevice(o.Device)
		if err != nil {
			return nil, err
		}
		l.device = d.c
	}
	var err error
	l.model, err = loadLlama(path, func(p *C.char) *C.struct_llama_model { return C.vt_load_model(p, l.device) })
	if err != nil {
		return nil, err
	}
	if l.model == nil {
		return nil, fmt.Errorf("%s: llama.cpp cannot open it: %s", path, takeError("no reason given"))
	}
	l.vocab = int(C.llama_vocab_n_tokens(C.llama_model_get_vocab(l.model)))
	if err := l.renew(); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// loadLlama has llama.cpp load a file that it does not abort on; nil where it refuses it.
func loadLlama(path string, load func(path *C.char) *C.struct_llama_model) (*C.struct_llama_model, error) {
	g, err := OpenGGUF(path)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	if err := checkVocab(g); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	p := C.CString(g.Paths()[0])
	defer C.free(unsafe.Pointer(p))
	return load(p), nil
}

// renew puts an empty context in place of the one there is.
func (l *Llama) renew() error {
	defer attend()()
	l.closeContext()
	l.past = 0
	l.context = C.vt_new_context(l.model, C.uint32_t(l.Context), C.uint32_t(min(l.Batch, l.Context)),
		C.int32_t(l.Threads), l.device != nil)
	if l.context == nil {
		return fmt.Errorf("%s: llama.cpp makes no context of %d tokens: %s", l.path, l.Context,
			takeError("no reason given"))
	}
	return nil
}

func (l *Llama) closeContext() {
	if l.context != nil {
		C.llama_free(l.context)
		l.context = nil
	}
}

func (l *Llama) closeLoRA() {
	if l.lora != nil {
		C.llama_adapter_lora_free(l.lora)
		l.lora = nil
	}
}

// Close frees everything. Closing twice is harmless.
func (l *Llama) Close() {
	l.closeContext()
	l.closeLoRA()
	if l.model != nil {
		C.llama_model_free(l.model)
		l.model = nil
	}
}

// Vocab is the number of tokens that the model knows.
func (l *Llama) Vocab() int { return l.vocab }

// SetLoRA puts an adapter file in place of the one that was set, its effect multiplied by scale, and forgets all
// tokens; path "" sets none. After an error none is set. It fails where the file is no LoRA of this model.
func (l *Llama) SetLoRA(path string, scale float32) error {
	defer attend()()
	if l.model == nil {
		return errors.New("the model is closed")
	}
	// A context of its own for each adapter: llama.cpp may compute the graph of its last call again, adapters and all,
	// even after another was set.
	l.closeContext()
	l.closeLoRA()
	if err := l.renew(); err != nil || path == "" {
		return err
	}
	if err := checkLoRA(path); err != nil {
		return fmt.Errorf("LoRA %s: %w", path, err)
	}
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	if l.lora = C.llama_adapter_lora_init(l.model, p); l.lora == nil {
		return fmt.Errorf("LoRA %s: %s", path, takeError("llama.cpp does not read it"))
	}
	if C.llama_set_adapter_lora(l.context, l.lora, C.float(scale)) != 0 {
		return fmt.Errorf("LoRA %s: %s", path, takeError("llama.cpp does not take it"))
	}
	return nil
}

// checkLoRA refuses what llama.cpp aborts the process on; that the file fits the model it checks itself.
func checkLoRA(path string) error {
	g, err := OpenGGUF(path)
	if err != nil {
		return err
	}
	defer g.Close()
	for _, key := range []string{"general.type", "general.architecture", "adapter.type"} {
		if _, ok := g.String(key); !ok {
			return fmt.Errorf("%s is missing or is not a string", key)
		}
	}
	if _, ok := g.Value("adapter.lora.alpha").(float32); !ok {
		return errors.New("adapter.lora.alpha is missing or is not a float32")
	}
	if g.Value("adapter.alora.invocation_tokens") != nil {
		return errors.New("an adapter that works behind certain tokens only (aLoRA) cannot be used")
	}
	for _, t := range g.Tensors() {
		if len(t.Shape) > 2 || !t.Type.Dequantizes() {
			return fmt.Errorf("tensor %s is %v %v, and must be a matrix of a type that can be turned into float32",
				t.Name, t.Type, t.Shape)
		}
		if !strings.HasSuffix(t.Name, ".weight.lora_a") && !strings.HasSuffix(t.Name, ".weight.lora_b") {
			return fmt.Errorf("tensor %s is no factor of a weight", t.Name)
		}
	}
	return nil
}

// Clear forgets all tokens.
func (l *Llama) Clear() {
	if l.context != nil {
		C.llama_memory_clear(C.llama_get_memory(l.context), false)
		l.past = 0
	}
}

// Decode appends tokens and gives the logits after the last rows of them, row after row of Vocab numbers. After an
// error of llama.cpp the tokens held are not known: Clear before going on.
func (l *Llama) Decode(tokens []int32, rows int) ([]float32, error) {
	defer attend()()
	switch {
	case l.context == nil:
		return nil, errors.New("decode: the model is closed")
	case len(tokens) == 0 || rows < 0 || rows > len(tokens):
		return nil, fmt.Errorf("decode %d tokens with %d rows of logits", len(tokens), rows)
	case len(tokens) > l.Context-l.past:
		return nil, fmt.Errorf("decode %d tokens after %d: there is room for %d", len(tokens), l.past, l.Context)
	}
	for _, t := range tokens {
		if t < 0 || int(t) >= l.vocab {
			return nil, fmt.Errorf("decode: token %d: the model's vocabulary has %d tokens", t, l.vocab)
		}
	}
	logits := make([]float32, 0, rows*l.vocab)
	for len(tokens) > 0 {
		n := min(len(tokens), l.Batch, l.Context)
		rest := len(tokens) - n
		wanted := max(0, min(n, rows-rest)) // of this part's tokens
		if code := C.vt_decode(l.context, (*C.int32_t)(&tokens[0]), C.int32_t(n), C.int32_t(wanted)); code != 0 {
			return nil, fmt.Errorf("decode: llama.cpp gives code %d: %s", int(code), takeError("no reason given"))
		}
		if wanted > 0 {
			values := unsafe.Slice((*float32)(C.llama_get_logits(l.context)), wanted*l.vocab)
			logits = append(logits, values...)
		}
		tokens = tokens[n:]
		l.past += n
	}
	return logits, nil
}
