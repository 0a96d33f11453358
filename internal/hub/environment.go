package hub

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/veratune/veratune/internal/durable"
)

// FromEnvironment is the client that the variables of Hugging Face's programs ask for: HF_ENDPOINT, HF_HUB_CACHE,
// HF_HOME, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_OFFLINE.
func FromEnvironment(report io.Writer) (*Client, error) {
	home, err := folderOf("HF_HOME")
	if home == "" && err == nil {
		var base string
		if base, err = folderOf("XDG_CACHE_HOME"); base == "" && err == nil {
			base, err = expand("~/.cache")
		}
		home = filepath.Join(base, "huggingface")
	}
	if err != nil {
		return nil, err
	}
	c := &Client{Endpoint: "https://huggingface.co", Cache: filepath.Join(home, "hub"), Timeout: 10 * time.Second,
		Retry: time.Second, Report: report}
	if endpoint := os.Getenv("HF_ENDPOINT"); endpoint != "" {
		c.Endpoint = strings.TrimRight(endpoint, "/")
	}
	for _, name := range []string{"HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE"} { // the first is its old name
		folder, err := folderOf(name)
		if err != nil {
			return nil, err
		}
		if folder != "" {
			c.Cache = folder
		}
	}
	c.Offline = isTrue(os.Getenv("HF_HUB_OFFLINE")) || isTrue(os.Getenv("TRANSFORMERS_OFFLINE"))
	c.Token, err = token(home)
	return c, err
}

func isTrue(s string) bool {
	return slices.Contains([]string{"1", "ON", "YES", "TRUE"}, strings.ToUpper(s))
}

// folderOf is the folder that a variable names, "" where it names none.
func folderOf(variable string) (string, error) {
	return expand(os.ExpandEnv(os.Getenv(variable)))
}

func expand(path string) (string, error) {
	if path != "~" && (len(path) < 2 || path[0] != '~' || !os.IsPathSeparator(path[1])) {
		return path, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("the home folder, for Hugging Face's cache: %w; HF_HOME names another place", err)
	}
	return home + path[1:], nil
}

// token is that of the environment, or the one that `hf auth login` has kept.
func token(home string) (string, error) {
	for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"} {
		if t := strings.TrimSpace(os.Getenv(name)); t != "" {
			return t, nil
		}
	}
	path, err := folderOf("HF_TOKEN_PATH")
	if path == "" {
		path = filepath.Join(home, "token")
	}
	if err != nil {
		return "", err
	}
	data, err := durable.ReadFile(path, maxRef)
	if err != nil {
		return "", nil // nobody has logged in
	}
	return strings.TrimSpace(string(data)), nil
}
