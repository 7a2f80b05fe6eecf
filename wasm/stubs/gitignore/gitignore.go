// Package ignore stands in for go-gitignore in the tab, which reads no folders
// from a disk and so ignores no files in them.
package ignore

import "errors"

var errLeftOut = errors.New("gitignore: left out of the tab: it has no files")

// A GitIgnore cannot be had here.
type GitIgnore struct{ _ byte }

// CompileIgnoreLines returns an error.
func CompileIgnoreLines(...string) (*GitIgnore, error) { return nil, errLeftOut }

// CompileIgnoreFileAndLines returns an error.
func CompileIgnoreFileAndLines(string, ...string) (*GitIgnore, error) { return nil, errLeftOut }

// MatchesPath panics.
func (*GitIgnore) MatchesPath(string) bool { panic(errLeftOut) }
