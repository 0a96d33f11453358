package main

import (
	"fmt"
	"regexp"
	"strconv"
)

// partName is what gguf-split calls the parts of a file.
var partName = regexp.MustCompile(`^(.+)-(\d{5})-of-(\d{5})\.gguf$`)

// parts are the names of all parts of the split model that one of them names, none for other files.
func parts(name string) (list []string) {
	part := partName.FindStringSubmatch(name)
	if part == nil {
		return nil
	}
	count, _ := strconv.Atoi(part[3])
	for i := range count {
		list = append(list, fmt.Sprintf("%s-%05d-of-%s.gguf", part[1], i+1, part[3]))
	}
	return list
}
