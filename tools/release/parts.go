package main

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// component is a module that is inside a program.
type component struct {
	path, version string
	folder        string // where its sources are
}

// componentsOf reads which modules a program was made of, Go itself first.
func componentsOf(program string) ([]component, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	parts := []component{{path: "go", version: info.GoVersion, folder: strings.TrimSpace(string(root))}}
	for _, m := range info.Deps {
		folder, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", m.Path).Output()
		if err != nil {
			return nil, fmt.Errorf("go list -m %s: %w", m.Path, err)
		}
		parts = append(parts, component{path: m.Path, version: m.Version, folder: strings.TrimSpace(string(folder))})
	}
	return parts, nil
}

var licenceName = regexp.MustCompile(`(?i)^(li[cs]en[cs]e|copying|notice|unlicense|patents)`)

// beside are folders of modules whose licences are of their own.
var beside = map[string][]string{
	"github.com/ollama/ollama": {"llama/llama.cpp", "ml/backend/ggml/ggml"},
}

// libraries are the parts of the compiler's libraries that get into a program, by their folders.
var libraries = []string{".", "lib/libcxx", "lib/libcxxabi", "lib/libunwind", "lib/libc/glibc", "lib/libc/mingw"}

// licences are the texts of everything that a program is made of. A module without one is an error.
func licences(parts []component, runtimeFolder string) ([]file, error) {
	var files []file
	add := func(as, folder string) error {
		found, err := licencesIn(path.Join("licenses", as), folder)
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("%s: no licence is in %s", as, folder)
		}
		files = append(files, found...)
		return err
	}
	for _, p := range parts {
		if err := add(p.path, p.folder); err != nil {
			return nil, err
		}
		for _, sub := range beside[p.path] {
			if err := add(path.Join(p.path, sub), filepath.Join(p.folder, sub)); err != nil {
				return nil, err
			}
		}
	}
	if runtimeFolder == "" {
		return files, nil
	}
	for _, sub := range libraries {
		if err := add(path.Join("zig", sub), filepath.Join(runtimeFolder, sub)); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func licencesIn(as, folder string) ([]file, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var files []file
	for _, e := range entries {
		if e.IsDir() || !licenceName.MatchString(e.Name()) || path.Ext(e.Name()) == ".go" {
			continue
		}
		content, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			return nil, err
		}
		files = append(files, file{name: path.Join(as, e.Name()), content: content})
	}
	return files, nil
}

// spdx is the bill of materials in SPDX 2.3: the program and its modules, with the checksum of the program.
func spdx(version, target string, program []byte, parts []component, date time.Time) ([]byte, error) {
	type object = map[string]any
	const unknown = "NOASSERTION"
	sum := sum256(program)
	packages := []object{{"SPDXID": "SPDXRef-veratune", "name": "veratune", "versionInfo": version,
		"downloadLocation": unknown, "licenseConcluded": "MIT", "licenseDeclared": "MIT", "filesAnalyzed": false,
		"copyrightText": unknown, "primaryPackagePurpose": "APPLICATION",
		"checksums": []object{{"algorithm": "SHA256", "checksumValue": sum}}}}
	relations := []object{{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
		"relatedSpdxElement": "SPDXRef-veratune"}}
	for i, p := range parts {
		id := fmt.Sprintf("SPDXRef-%d", i)
		packages = append(packages, object{"SPDXID": id, "name": p.path, "versionInfo": p.version,
			"downloadLocation": unknown, "licenseConcluded": unknown, "licenseDeclared": unknown,
			"copyrightText": unknown, "filesAnalyzed": false,
			"externalRefs": []object{{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
				"referenceLocator": "pkg:golang/" + p.path + "@" + p.version}}})
		relations = append(relations, object{"spdxElementId": "SPDXRef-veratune", "relationshipType": "CONTAINS",
			"relatedSpdxElement": id})
	}
	name := fmt.Sprintf("veratune-%s-%s", version, target)
	return json.MarshalIndent(object{"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
		"name": name, "documentNamespace": "urn:sha256:" + sum,
		"creationInfo": object{"created": date.Format(time.RFC3339), "creators": []string{"Tool: veratune-release"}},
		"packages":     packages, "relationships": relations}, "", " ")
}
