package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/model"
)

// What `make release` writes into the program; empty in other builds.
var release, commit string

// version is that of the release, or the one that Go gives a build of a module's version.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return cmp.Or(release, "unknown")
	}
	return cmp.Or(release, info.Main.Version, "unknown")
}

// revision is the commit that the program was built from, as far as that is known.
func revision() string {
	if info, ok := debug.ReadBuildInfo(); ok && commit == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return cmp.Or(commit, "unknown")
}

// printVersion writes what a report of a fault needs.
func printVersion(c *cli.Context) {
	var names []string
	devices, _, err := model.Devices("")
	for _, d := range devices {
		names = append(names, d.Name)
	}
	if err != nil {
		names = append(names, err.Error())
	}
	fmt.Fprintf(c.App.Writer, "veratune %s\ncommit           %s\nbuilt for        %s/%s, %s\ninstruction set  %s\n"+
		"devices          %s\n", version(), revision(), runtime.GOOS, runtime.GOARCH, runtime.Version(), model.ISA(),
		strings.Join(names, ", "))
}
