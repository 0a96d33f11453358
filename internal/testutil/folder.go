package testutil

import "strings"

// WithoutFolder leaves a folder's path out of a text, as it is and as JSON has it where its separators are backslashes.
func WithoutFolder(text, folder string) string {
	return strings.NewReplacer(folder, "", strings.ReplaceAll(folder, `\`, `\\`), "").Replace(text)
}
