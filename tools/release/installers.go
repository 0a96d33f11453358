package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
	"text/template"
)

var (
	//go:embed install.sh.tmpl
	installSh string
	//go:embed veratune.rb.tmpl
	formula string
)

// installers writes what fetches the archives from j.url, and adds the sums of that. Without the address there is
// nothing to fetch from.
func (j job) installers(sums map[string]string) error {
	if j.url == "" {
		fmt.Println("release: no RELEASE_URL: install.sh, veratune.rb and veratune.json are not written")
		return nil
	}
	url := strings.TrimSuffix(j.url, "/")
	sum := func(target string) string { return sums["veratune-"+j.version+"-"+target+".tar.gz"] }
	values := map[string]any{"Version": j.version, "Number": strings.TrimPrefix(j.version, "v"), "URL": url,
		"Amd64": sum("linux-amd64"), "Arm64": sum("linux-arm64")}
	written := map[string][]byte{}
	for name, text := range map[string]string{"install.sh": installSh, "veratune.rb": formula} {
		if sum("linux-amd64") == "" {
			continue
		}
		t, err := template.New(name).Parse(text)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := t.Execute(&b, values); err != nil {
			return err
		}
		written[name] = b.Bytes()
	}
	folder := "veratune-" + j.version + "-windows-amd64"
	if s := sums[folder+".zip"]; s != "" {
		manifest, err := json.MarshalIndent(map[string]any{
			"version": values["Number"], "description": "Finetunes quantised GGUF models", "homepage": url,
			"license": "MIT", "bin": "veratune.exe", "extract_dir": folder,
			"architecture": map[string]any{"64bit": map[string]string{"url": url + "/" + folder + ".zip", "hash": s}},
		}, "", "    ")
		if err != nil {
			return err
		}
		written["veratune.json"] = append(manifest, '\n')
	}
	for name, content := range written {
		var err error
		if sums[name], err = j.write(name, content); err != nil {
			return err
		}
	}
	return nil
}
