package tokenizer

import "sync"

// rules are what a pre-tokenizer does.
type rules struct {
	parts func() []splitter // one after the other: each takes apart what the one before has made
	whole bool              // a piece that is a token stays whole
	plain bool              // tokens are text, and those of bytes written <0x0A>; else each byte has a character
	lines bool              // runs of line ends that are a token stay whole
	meta  bool              // words begin with their space, and the first with one that is put before it
	space bool              // a space is written ▁
	bos   bool              // texts begin with the start token where the file says nothing
	force bool              // even where it says that they don't
	noBOS bool              // there is no start token where the file names none
}

// Parts of expressions.
const (
	small    = `'s|'t|'re|'ve|'m|'ll|'d`
	either   = `'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]`
	blanks   = `|\s*[\r\n]+|\s+(?!\S)|\s+`
	signs    = `| ?[^\s\p{L}\p{N}]+[\r\n]*`
	word     = `[^\r\n\p{L}\p{N}]?\p{L}+`
	gpt2     = small + `| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	llama3   = either + `|` + word + `|\p{N}{1,3}` + signs + blanks
	qwen2    = either + `|` + word + `|\p{N}` + signs + blanks
	code     = `[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_{|}~` + "`" + `][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+`
	deepseek = code + `| ?[\p{P}\p{S}]+[\r\n]*` + blanks
	kana     = `[一-龥぀-ゟ゠-ヿ]+`
	open     = `\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*` + blanks
)

func expressions(sources ...string) func() []splitter {
	return sync.OnceValue(func() (list []splitter) {
		for _, s := range sources {
			list = append(list, compile(s))
		}
		return list
	})
}

func made(list func() []splitter) func() []splitter { return sync.OnceValue(list) }

var (
	gpt2Rules      = rules{parts: expressions(gpt2)}
	digitRules     = rules{parts: expressions(`\p{N}`, gpt2)}
	llama3Rules    = rules{parts: expressions(llama3)}
	llama3Whole    = rules{parts: llama3Rules.parts, whole: true, bos: true}
	glmRules       = rules{parts: llama3Rules.parts, noBOS: true}
	glmWhole       = rules{parts: llama3Rules.parts, noBOS: true, whole: true}
	qwen2Rules     = rules{parts: expressions(qwen2)}
	deepseek3Rules = rules{parts: expressions(`\p{N}{1,3}`, kana, deepseek)}
	bloomRules     = rules{parts: expressions(` ?[^(\s|.,!?…。，、।۔،)]+`)}
	bailingRules   = rules{parts: expressions(`'[sSdDmMtT]|'[lL][lL]|'[vV][eE]|'[rR][eE]|` + word + `|\p{N}` + signs +
		`|\s*[\r\n]|\s+(?!\S)|\s+`)}
	gpt4oRules = rules{parts: made(func() []splitter { return []splitter{cased(letters, open, contraction)} })}
	ayaRules   = rules{parts: made(func() []splitter {
		return []splitter{digitGroups{}, compile(`[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?C)|` + open)}
	})}
	lineSplit   = made(func() []splitter { return []splitter{newlines{}} })
	gemma4Rules = rules{parts: lineSplit, plain: true, lines: true, space: true, bos: true, force: true}
)

// preTokenizers are the values of tokenizer.ggml.pre.
var preTokenizers = map[string]rules{
	"gpt-2":                    gpt2Rules,
	"phi-2":                    gpt2Rules,
	"jina-es":                  gpt2Rules,
	"jina-de":                  gpt2Rules,
	"gigachat":                 gpt2Rules,
	"jina-v2-es":               gpt2Rules,
	"jina-v2-de":               gpt2Rules,
	"a.x-4.0":                  gpt2Rules,
	"mellum":                   gpt2Rules,
	"modern-bert":              gpt2Rules,
	"jina-v1-en":               gpt2Rules,
	"jina-v2-code":             gpt2Rules,
	"roberta-bpe":              gpt2Rules,
	"mpt":                      gpt2Rules,
	"olmo":                     gpt2Rules,
	"jais":                     gpt2Rules,
	"trillion":                 gpt2Rules,
	"granite-docling":          gpt2Rules,
	"exaone4":                  gpt2Rules,
	"starcoder":                digitRules,
	"refact":                   digitRules,
	"command-r":                digitRules,
	"smollm":                   digitRules,
	"codeshell":                digitRules,
	"exaone":                   digitRules,
	"minerva-7b":               digitRules,
	"mellum2":                  digitRules,
	"dbrx":                     llama3Rules,
	"smaug-bpe":                llama3Rules,
	"llama3":                   llama3Whole,
	"llama-v3":                 llama3Whole,
	"llama-bpe":                llama3Whole,
	"falcon3":                  llama3Whole,
	"falcon-h1":                llama3Whole,
	"pixtral":                  llama3Whole,
	"midm-2.0":                 llama3Whole,
	"lfm2":                     llama3Whole,
	"jina-v5-nano":             llama3Whole,
	"chatglm-bpe":              glmRules,
	"glm4":                     glmWhole,
	"glm5":                     glmWhole,
	"qwen2":                    qwen2Rules,
	"deepseek-r1-qwen":         qwen2Rules,
	"kormo":                    qwen2Rules,
	"f2llmv2":                  qwen2Rules,
	"stablelm2":                qwen2Rules,
	"hunyuan":                  qwen2Rules,
	"solar-open":               qwen2Rules,
	"megrez":                   qwen2Rules,
	"grok-2":                   qwen2Rules,
	"deepseek-v3":              deepseek3Rules,
	"hunyuan-dense":            deepseek3Rules,
	"joyai-llm":                deepseek3Rules,
	"hy_v4":                    deepseek3Rules,
	"bloom":                    bloomRules,
	"poro-chat":                bloomRules,
	"gpt3-finnish":             bloomRules,
	"bailingmoe":               bailingRules,
	"bailingmoe2":              bailingRules,
	"llada-moe":                bailingRules,
	"gpt-4o":                   gpt4oRules,
	"llama4":                   gpt4oRules,
	"kanana2":                  gpt4oRules,
	"talkie":                   gpt4oRules,
	"minimax-m2":               gpt4oRules,
	"tiny_aya":                 ayaRules,
	"cohere2moe":               ayaRules,
	"gemma4":                   gemma4Rules,
	"granite-embed-multi-311m": gemma4Rules,

	"default":  rules{parts: expressions(`[\p{P}$+<=>^~|]+`, gpt2, `\p{N}+`, `[0-9][0-9][0-9]`)},
	"falcon":   rules{parts: expressions(`[\p{P}$+<=>^~|`+"`"+`]+`, gpt2, `[0-9][0-9][0-9]`)},
	"minicpm5": rules{parts: expressions(`\p{N}{1,3}`, either+`|`+word+`|\p{N}+`+signs+blanks), whole: true},
	"jais-2": rules{parts: expressions(either + `|` + word + `|\p{N}{1,3}` + signs +
		`|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}`)},
	"deepseek-llm": rules{parts: expressions(`[\r\n]`,
		`\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+`, `\s?[!-/:-~！-／：-～‘-‟　-。]+`, `\s+$`, `[一-龥ࠀ-一가-퟿]+`, `\p{N}+`)},
	"deepseek-coder": rules{parts: expressions(`[\r\n]`, `\s?\p{L}+`, `\s?\p{P}+`, `[一-龥ࠀ-一가-퟿]+`, `\p{N}`)},
	"spark2_5": rules{parts: expressions(`\p{N}{1,3}`, kana, code+`| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+`,
		`\p{N}`)},
	"youtu": rules{parts: expressions(`[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+`,
		`[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?C)|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*`+blanks), whole: true},
	"qwen35": rules{parts: expressions(either +
		`|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*` + blanks)},
	"viking": rules{parts: expressions(` ?[^(\s|.,!?…。，、।۔،)]+`, `\p{N}`)},
	"tekken": rules{parts: made(func() []splitter {
		return []splitter{cased(letters, `\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*`+blanks, free)}
	}), whole: true, bos: true},
	"chameleon": rules{parts: made(func() []splitter {
		return append([]splitter{sentinels{}, images{}},
			expressions(`[\t\n]|    |  `, `\p{N}`, `[\p{P}!-/:-@\[-`+"`"+`{-~]`, gpt2)()...)
	}), bos: true},
	"granite-embed-multi-97m": rules{parts: made(func() []splitter {
		return []splitter{cased(parseSet(`[\p{L}\p{M}]`), open, contraction)}
	}), whole: true},
	"kimi-k2": rules{parts: made(func() []splitter { return []splitter{han()} })},
	"superbpe": rules{parts: made(func() []splitter {
		return []splitter{compile(`\p{N}+`), thousands{}}
	})},
	"seed-coder": rules{
		parts: expressions(either + `|` + word + `|\p{N}| ?[^\s\p{L}\p{N}\r\n]+` + blanks),
	},
	"ufakzeka": rules{parts: expressions(word + `|\p{N}` + signs + blanks)},
	"afmoe": rules{parts: made(func() []splitter {
		return []splitter{digitGroups{}, compile(`[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+`), compile(deepseek)}
	})},
	"laguna": rules{parts: made(func() []splitter { return []splitter{newlines{}, compile(qwen2)} })},
	"exaone-moe": rules{parts: expressions(either +
		`|[^\r\n\p{L}\p{N}]?(?W)|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+`)},
	"sarvam-moe": rules{parts: lineSplit, plain: true, space: true},
	"mmbert":     rules{parts: lineSplit, plain: true, lines: true, meta: true, space: true},
	"whitespace": rules{parts: expressions(`\S+`), plain: true},
}
