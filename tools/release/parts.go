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

	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// unknown is SPDX's word for it.
const unknown = "NOASSERTION"

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

// billOfMaterials is in SPDX 2.3: the program with its checksum, its modules, and what else is compiled into it.
func billOfMaterials(version, target string, program []byte, parts []component, runtimeFolder string,
	date time.Time) ([]byte, error) {
	sum := sum256(program)
	doc := spdx.Document{SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT",
		DocumentName: fmt.Sprintf("veratune-%s-%s", version, target), DocumentNamespace: "urn:sha256:" + sum,
		CreationInfo: &spdx.CreationInfo{Created: date.Format(time.RFC3339),
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "veratune-release"}}}}
	add := func(p spdx.Package, from common.ElementID, relation string) {
		p.PackageSPDXIdentifier = common.ElementID("veratune")
		if len(doc.Packages) > 0 {
			p.PackageSPDXIdentifier = common.ElementID(fmt.Sprint(len(doc.Packages)))
		}
		p.PackageDownloadLocation, p.PackageCopyrightText = unknown, unknown
		doc.Packages = append(doc.Packages, &p)
		doc.Relationships = append(doc.Relationships,
			&spdx.Relationship{RefA: common.MakeDocElementID("", string(from)),
				RefB: common.MakeDocElementID("", string(p.PackageSPDXIdentifier)), Relationship: relation})
	}
	add(spdx.Package{PackageName: "veratune", PackageVersion: version, PackageLicenseConcluded: "MIT",
		PackageLicenseDeclared: "MIT", PrimaryPackagePurpose: "APPLICATION",
		PackageChecksums: []common.Checksum{{Algorithm: common.SHA256, Value: sum}}},
		"DOCUMENT", common.TypeRelationshipDescribe)
	for _, p := range parts {
		add(spdx.Package{PackageName: p.path, PackageVersion: p.version,
			PackageExternalReferences: []*spdx.PackageExternalReference{{Category: common.CategoryPackageManager,
				RefType: common.TypePackageManagerPURL, Locator: "pkg:golang/" + p.path + "@" + p.version}}},
			"veratune", common.TypeRelationshipContains)
		for _, sub := range beside[p.path] {
			add(spdx.Package{PackageName: path.Base(sub), PackageSourceInfo: "in " + p.path + "@" + p.version +
				", " + sub},
				"veratune", common.TypeRelationshipContains)
		}
	}
	if runtimeFolder != "" {
		number, err := exec.Command(filepath.Join(runtimeFolder, "zig"), "version").Output()
		if err != nil {
			return nil, fmt.Errorf("zig version: %w", err)
		}
		add(spdx.Package{PackageName: "zig", PackageVersion: strings.TrimSpace(string(number)),
			PackageSourceInfo: "its runtime, and LLVM's for C++"}, "veratune", common.TypeRelationshipContains)
	}
	return json.MarshalIndent(doc, "", " ")
}
